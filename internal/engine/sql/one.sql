-- One lock or unlock that never waits, of the key $1. The letters before the statements:
-- X and S acquire a number exclusively and shared; x and s release it; P, R, p and r do the
-- same to a pair; Q checks whether a shared lock could be acquired, and q does for a pair;
-- C only checks that the session is there. The result is the backend's PID, a colon, and
-- 1 or 0.

-- X
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_try_advisory_lock($1::bigint)::int::text;

-- x
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_advisory_unlock($1::bigint)::int::text;

-- S
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_try_advisory_lock_shared($1::bigint)::int::text;

-- s
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_advisory_unlock_shared($1::bigint)::int::text;

-- P
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_try_advisory_lock(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::int::text;

-- p
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_advisory_unlock(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::int::text;

-- R
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_try_advisory_lock_shared(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::int::text;

-- r
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.pg_advisory_unlock_shared(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::int::text;

-- Q
SELECT pg_catalog.pg_backend_pid()::text || ':' || CASE WHEN pg_catalog.pg_try_advisory_lock_shared($1::bigint)
    THEN pg_catalog.pg_advisory_unlock_shared($1::bigint)::int::text ELSE '0' END;

-- q
SELECT pg_catalog.pg_backend_pid()::text || ':' || CASE WHEN pg_catalog.pg_try_advisory_lock_shared(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)
    THEN pg_catalog.pg_advisory_unlock_shared(($1::bigint >> 32)::int, (($1::bigint << 32) >> 32)::int)::int::text ELSE '0' END;

-- C
SELECT pg_catalog.pg_backend_pid()::text || ':' || ($1::bigint IS NOT NULL)::int::text;
