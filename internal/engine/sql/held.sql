-- The advisory locks that this session holds, after an error that leaves this in doubt: an
-- advisory lock taken by a statement that then fails is kept (PostgreSQL manual, 13.3.5
-- "Advisory Locks"). The result is the backend's PID, a colon, and for each lock its
-- classid, objid, objsubid and mode.
SELECT pg_catalog.pg_backend_pid()::text || ':' || coalesce(pg_catalog.string_agg(
    l.classid::text || ' ' || l.objid::text || ' ' || l.objsubid::text || ' ' || l.mode, ','), '')
FROM pg_catalog.pg_locks l
WHERE l.locktype = 'advisory' AND l.pid = pg_catalog.pg_backend_pid() AND l.granted
