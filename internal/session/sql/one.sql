-- One lock or unlock that never waits. $1 is the key and $2 what to do with it:
-- X S take a number exclusively, shared; x s give it back; P R p r the same for
-- a pair; Q asks whether a shared lock could be had, q the same for a pair.
-- The answer is the backend's pid, a colon, and 1 or 0.
SELECT pg_catalog.pg_backend_pid()::text || ':' || (CASE $2::text
    WHEN 'X' THEN pg_catalog.pg_try_advisory_lock(a.key)
    WHEN 'x' THEN pg_catalog.pg_advisory_unlock(a.key)
    WHEN 'S' THEN pg_catalog.pg_try_advisory_lock_shared(a.key)
    WHEN 's' THEN pg_catalog.pg_advisory_unlock_shared(a.key)
    WHEN 'P' THEN pg_catalog.pg_try_advisory_lock((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
    WHEN 'p' THEN pg_catalog.pg_advisory_unlock((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
    WHEN 'R' THEN pg_catalog.pg_try_advisory_lock_shared((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
    WHEN 'r' THEN pg_catalog.pg_advisory_unlock_shared((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
    WHEN 'Q' THEN CASE WHEN pg_catalog.pg_try_advisory_lock_shared(a.key)
                       THEN pg_catalog.pg_advisory_unlock_shared(a.key) ELSE false END
    WHEN 'q' THEN CASE WHEN pg_catalog.pg_try_advisory_lock_shared((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
                       THEN pg_catalog.pg_advisory_unlock_shared((a.key >> 32)::int, ((a.key << 32) >> 32)::int)
                       ELSE false END
    END)::int::text
FROM (SELECT $1::bigint AS key) AS a
