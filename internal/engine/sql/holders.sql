-- Which sessions hold a lock now? $1, $2 and $3 are its classid, objid and objsubid. The
-- answer is the backend's pid, a colon, and the pids of the holders, sorted.
SELECT pg_catalog.pg_backend_pid()::text || ':' || coalesce(pg_catalog.string_agg(l.pid::text, ',' ORDER BY l.pid), '')
FROM pg_catalog.pg_locks l
WHERE l.locktype = 'advisory' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  AND l.classid = $1::text::oid AND l.objid = $2::text::oid AND l.objsubid = $3::text::int2
