-- How many sessions of clients there are, other than this one, and of how many the
-- activity is hidden from the role. The type of a hidden session is hidden too, but not
-- its role, which other processes do not have. How many belong to superusers.
SELECT CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM (
    SELECT pg_catalog.count(*) AS sessions,
        pg_catalog.count(*) FILTER (WHERE a.query OPERATOR(pg_catalog.=) '<insufficient privilege>') AS hidden,
        pg_catalog.count(*) FILTER (WHERE r.rolsuper) AS of_superusers
    FROM pg_catalog.pg_stat_activity AS a
        JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.usesysid
    WHERE a.datid IS NOT NULL
        AND (a.backend_type IS NULL OR a.backend_type OPERATOR(pg_catalog.=) 'client backend')
        AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
) AS x;
