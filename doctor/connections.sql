-- How many connections are in use, and how many the server, the database and the role
-- may have. A limit of -1 is none. reserved_connections exists from Postgres 16 on.
SELECT CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM (
    SELECT CAST(pg_catalog.current_setting('max_connections') AS pg_catalog.int8) AS "limit",
        CAST(pg_catalog.current_setting('superuser_reserved_connections') AS pg_catalog.int8)
            OPERATOR(pg_catalog.+) CAST(COALESCE(pg_catalog.current_setting('reserved_connections', true), '0') AS pg_catalog.int8) AS reserved,
        pg_catalog.count(*) AS used,
        r.rolconnlimit AS role_limit,
        pg_catalog.count(*) FILTER (WHERE a.usesysid OPERATOR(pg_catalog.=) r.oid) AS role_used,
        b.datconnlimit AS database_limit,
        pg_catalog.count(*) FILTER (WHERE a.datid OPERATOR(pg_catalog.=) b.oid) AS database_used
    FROM pg_catalog.pg_roles AS r
        CROSS JOIN pg_catalog.pg_database AS b
        CROSS JOIN pg_catalog.pg_stat_activity AS a
    WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER
        AND b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        AND a.datid IS NOT NULL AND a.usesysid IS NOT NULL
        AND (a.backend_type IS NULL OR a.backend_type OPERATOR(pg_catalog.=) 'client backend')
    GROUP BY r.oid, r.rolconnlimit, b.oid, b.datconnlimit
) AS x;
