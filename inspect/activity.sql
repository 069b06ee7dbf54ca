-- The sessions of the server that match the filters, except the one that reads. The
-- rows are as in snapshot.sql. The conditions and the columns that they compare, which
-- attribute.go has, replace the comments about them. The statement is run only if it
-- has each of these markers exactly once: see fill in sql.go.
WITH
-- Within a transaction, pg_stat_activity does not change after the first read.
fresh AS MATERIALIZED (
    SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done
),
-- Columns that not every version has. If the catalog has such a column, it is in a
-- nearer scope of the queries below, and the one here is not used.
absent AS MATERIALIZED (
    SELECT CAST(NULL AS pg_catalog.int4) AS leader_pid, -- before 13
        CAST(NULL AS pg_catalog.int8) AS query_id -- before 14
),
activity AS MATERIALIZED (
    SELECT a.*
    FROM fresh AS f CROSS JOIN LATERAL (
        SELECT s.* FROM pg_catalog.pg_stat_activity AS s
        OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
    ) AS a
),
server AS MATERIALIZED (
    SELECT pg_catalog.current_setting('server_version_num') AS version,
        pg_catalog.pg_is_in_recovery() AS in_recovery,
        t.time,
        CAST(EXTRACT(epoch FROM t.time) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) AS now,
        d.oid AS database_oid,
        d.datname AS database,
        CURRENT_USER AS "user",
        pg_catalog.pg_backend_pid() AS pid,
        pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
        pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS signals_all
    FROM pg_catalog.pg_database AS d
        CROSS JOIN (SELECT pg_catalog.clock_timestamp() AS time OFFSET 0) AS t
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
),
-- The attributes that filters name; unused ones are not computed. Times and durations
-- are in microseconds.
sessions AS NOT MATERIALIZED (
    SELECT x.*
    FROM server AS v
        CROSS JOIN absent
        CROSS JOIN LATERAL (
            SELECT a.pid AS process
                -- and the attributes of sessions
            FROM activity AS a
        ) AS x
)
SELECT 'server' AS kind, CAST(pg_catalog.row_to_json(v) AS pg_catalog.text) AS payload
FROM server AS v
UNION ALL
SELECT 'session', x.payload
FROM absent CROSS JOIN LATERAL (
    SELECT a.pid, CAST(ROW (a.pid, leader_pid, a.usename, a.datname, a.application_name, a.client_addr,
        a.backend_type, a.state, a.wait_event_type, a.wait_event, query_id,
        CAST(EXTRACT(epoch FROM a.backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        CAST(EXTRACT(epoch FROM a.xact_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        CAST(EXTRACT(epoch FROM a.query_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        CAST(EXTRACT(epoch FROM a.state_change) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        a.client_hostname, a.client_port, a.backend_xid, a.backend_xmin,
        pg_catalog.age(a.backend_xid), pg_catalog.age(a.backend_xmin),
        a.query) AS pg_catalog.text) AS payload
    FROM activity AS a
) AS x
WHERE x.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
    AND x.pid OPERATOR(pg_catalog.=) ANY (
        SELECT a.process
        FROM sessions AS a CROSS JOIN server AS v
        WHERE true -- conditions on the session a
    );
