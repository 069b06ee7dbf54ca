-- The sessions that hold these advisory locks in this database, or wait for them, in a
-- mode that conflicts with the request: a JSON array, holders first. The caller controls
-- search_path, so every name and operator is qualified with pg_catalog.
-- $1: the keys, a JSON array of [classid, objid, objsubid]
-- $2: 'true' if the lock was requested in shared mode
SELECT CAST(COALESCE(pg_catalog.json_agg(h), '[]') AS pg_catalog.text)
FROM (
    SELECT
        COALESCE(l.pid, 0) AS pid,
        COALESCE(a.usename, '') AS "user",
        COALESCE(a.application_name, '') AS application,
        COALESCE(a.client_hostname, pg_catalog.host(a.client_addr), '') AS client,
        COALESCE(a.state, '') AS state,
        a.backend_start AS since,
        l.mode,
        l.granted
    FROM pg_catalog.pg_locks AS l
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'
      AND l.database OPERATOR(pg_catalog.=) (
          SELECT d.oid FROM pg_catalog.pg_database AS d
          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
      AND EXISTS (
          SELECT FROM pg_catalog.json_array_elements(CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.json)) AS k
          WHERE l.classid OPERATOR(pg_catalog.=) CAST(k OPERATOR(pg_catalog.->>) 0 AS pg_catalog.oid)
            AND l.objid OPERATOR(pg_catalog.=) CAST(k OPERATOR(pg_catalog.->>) 1 AS pg_catalog.oid)
            AND l.objsubid OPERATOR(pg_catalog.=) CAST(k OPERATOR(pg_catalog.->>) 2 AS pg_catalog.int2))
      AND (l.mode OPERATOR(pg_catalog.<>) 'ShareLock' OR CAST($2 AS pg_catalog.text) OPERATOR(pg_catalog.<>) 'true')
      -- A prepared transaction has no pid.
      AND (l.pid IS NULL OR l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())
    ORDER BY l.granted DESC, a.backend_start, l.pid
    LIMIT 16
) AS h
