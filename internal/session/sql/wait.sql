-- Waits for one lock, for a time. $1 is the key, $2 what to do with it as in
-- one.sql (X S P R), $3 the lock_timeout in milliseconds, which is the session's
-- from here on: nothing else that the session runs ever waits for a lock. The
-- CASE sees to it that the timeout is set before the lock is asked for.
SELECT CASE WHEN pg_catalog.set_config('lock_timeout', $3::text, false) IS NOT NULL THEN
    pg_catalog.pg_backend_pid()::text || ':1' || (CASE $2::text
        WHEN 'X' THEN pg_catalog.pg_advisory_lock(a.key)
        WHEN 'S' THEN pg_catalog.pg_advisory_lock_shared(a.key)
        WHEN 'P' THEN pg_catalog.pg_advisory_lock((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
        WHEN 'R' THEN pg_catalog.pg_advisory_lock_shared((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
    END)::text END
FROM (SELECT $1::bigint AS key) AS a
