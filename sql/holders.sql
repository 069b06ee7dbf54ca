-- Who holds these advisory locks of this database, or waits for them, in a mode
-- that keeps another session out: a JSON array, holders first.
-- $1: the keys, a JSON array of [classid, objid, objsubid]
-- $2: 'true' when the lock was wanted in shared mode
SELECT coalesce(pg_catalog.json_agg(h), '[]')::text
FROM (
    SELECT
        coalesce(l.pid, 0) AS pid,
        coalesce(a.usename, '') AS "user",
        coalesce(a.application_name, '') AS application,
        coalesce(a.client_hostname, pg_catalog.host(a.client_addr), '') AS client,
        coalesce(a.state, '') AS state,
        a.backend_start AS since,
        l.mode,
        l.granted
    FROM pg_catalog.pg_locks AS l
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'advisory'
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND (l.classid, l.objid, l.objsubid) IN (
          SELECT (k ->> 0)::oid, (k ->> 1)::oid, (k ->> 2)::smallint
          FROM pg_catalog.json_array_elements($1::text::json) AS k)
      AND (l.mode <> 'ShareLock' OR $2::text <> 'true')
      AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    ORDER BY l.granted DESC, a.backend_start, l.pid
    LIMIT 16
) AS h
