-- The sessions that hold these advisory locks in this database, in any mode: a JSON array
-- ordered by lock. The caller controls search_path, so every name and operator is
-- qualified with pg_catalog.
-- $1: the keys, a JSON array of [classid, objid, objsubid]
SELECT CAST(COALESCE(pg_catalog.json_agg(h), '[]') AS pg_catalog.text)
FROM (
    SELECT
        k.number AS key,
        COALESCE(l.pid, 0) AS pid,
        COALESCE(a.usename, '') AS "user",
        COALESCE(a.application_name, '') AS application,
        COALESCE(a.client_hostname, pg_catalog.host(a.client_addr), '') AS client,
        COALESCE(a.state, '') AS state,
        a.backend_start AS since,
        l.mode,
        l.granted
    FROM (
        -- Columns that can be hashed: many keys and many locks are joined in one pass.
        SELECT m.number OPERATOR(pg_catalog.-) 1 AS number,
            CAST(m.key OPERATOR(pg_catalog.->>) 0 AS pg_catalog.oid) AS classid,
            CAST(m.key OPERATOR(pg_catalog.->>) 1 AS pg_catalog.oid) AS objid,
            CAST(m.key OPERATOR(pg_catalog.->>) 2 AS pg_catalog.int2) AS objsubid
        FROM pg_catalog.json_array_elements(CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.json))
            WITH ORDINALITY AS m (key, number)
    ) AS k
    JOIN pg_catalog.pg_locks AS l ON l.classid OPERATOR(pg_catalog.=) k.classid
        AND l.objid OPERATOR(pg_catalog.=) k.objid
        AND l.objsubid OPERATOR(pg_catalog.=) k.objsubid
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'
      AND l.granted
      AND l.database OPERATOR(pg_catalog.=) (
          SELECT d.oid FROM pg_catalog.pg_database AS d
          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    ORDER BY k.number, a.backend_start, l.pid, l.mode
) AS h
