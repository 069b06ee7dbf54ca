-- Waits for one lock, for a limited time. $1 is the key, $2 the lock_timeout in
-- milliseconds, which stays in effect for the session: no other statement of it waits for
-- a lock. The letters are those of one.sql. The CASE makes sure that the timeout is set
-- before the lock is requested.

-- X
SELECT CASE WHEN pg_catalog.set_config('lock_timeout', $2::text, false) IS NOT NULL
    THEN pg_catalog.pg_backend_pid()::text || ':1' || pg_catalog.pg_advisory_lock($1::bigint)::text END;

-- S
SELECT CASE WHEN pg_catalog.set_config('lock_timeout', $2::text, false) IS NOT NULL
    THEN pg_catalog.pg_backend_pid()::text || ':1' || pg_catalog.pg_advisory_lock_shared($1::bigint)::text END;

-- P
SELECT CASE WHEN pg_catalog.set_config('lock_timeout', $2::text, false) IS NOT NULL
    THEN pg_catalog.pg_backend_pid()::text || ':1' || pg_catalog.pg_advisory_lock(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::text END;

-- R
SELECT CASE WHEN pg_catalog.set_config('lock_timeout', $2::text, false) IS NOT NULL
    THEN pg_catalog.pg_backend_pid()::text || ':1' || pg_catalog.pg_advisory_lock_shared(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::text END;
