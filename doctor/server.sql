-- The server, the role, and what the role may do. It runs on any version, so that one
-- that is too old can be reported. Privileges count if the role has them without SET
-- ROLE (USAGE): pglock does not change its role.
SELECT CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM (
    SELECT CAST(pg_catalog.current_setting('server_version_num') AS pg_catalog.int4) AS version,
        pg_catalog.current_setting('server_version') AS version_text,
        pg_catalog.pg_is_in_recovery() AS in_recovery,
        EXTRACT(epoch FROM pg_catalog.clock_timestamp()) AS time,
        pg_catalog.current_database() AS database,
        m.rolname AS "user",
        SESSION_USER AS login,
        pg_catalog.pg_backend_pid() AS pid,
        m.rolsuper AS superuser,
        m.rolinherit AS inherits,
        pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
        pg_catalog.pg_has_role('pg_read_all_stats', 'MEMBER') AS sees_member,
        pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS signals_all,
        pg_catalog.pg_has_role('pg_signal_backend', 'MEMBER') AS signals_member,
        -- from Postgres 18 on; else null
        (SELECT pg_catalog.pg_has_role(g.oid, 'USAGE')
            FROM pg_catalog.pg_roles AS g
            WHERE g.rolname OPERATOR(pg_catalog.=) 'pg_signal_autovacuum_worker') AS signals_autovacuum
    FROM pg_catalog.pg_roles AS m
    WHERE m.rolname OPERATOR(pg_catalog.=) CURRENT_USER
) AS x;
