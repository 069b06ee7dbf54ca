-- Does no session wait for a lock? $1, $2 and $3 are its classid, objid and objsubid. This
-- is for a session that holds the lock itself, which would be granted it again regardless
-- of waiters. The result is the backend's PID, a colon, and 1 if no session waits, else 0.
SELECT pg_catalog.pg_backend_pid()::text || ':' || CASE WHEN EXISTS (
    SELECT FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND NOT l.granted
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      AND l.classid = $1::text::oid AND l.objid = $2::text::oid AND l.objsubid = $3::text::int2
) THEN '0' ELSE '1' END
