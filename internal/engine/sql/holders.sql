-- The sessions that hold a lock. $1, $2 and $3 are its classid, objid and objsubid. The
-- result is the backend's PID, a colon, and the PIDs of the holders, sorted.
SELECT pg_catalog.pg_backend_pid()::text || ':' || coalesce(pg_catalog.string_agg(l.pid::text, ',' ORDER BY l.pid), '')
FROM pg_catalog.pg_locks l
WHERE l.locktype = 'advisory' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  AND l.classid = $1::text::oid AND l.objid = $2::text::oid AND l.objsubid = $3::text::int2
