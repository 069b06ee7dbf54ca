-- Many locks and unlocks that never wait, in order, in one round trip. $1 is the array of
-- keys, $2 a letter for each, as in one.sql. The result is the backend's PID, a colon, and
-- a 1 or 0 for each. The arrays are unnested in the SELECT list: in FROM, Postgres would
-- materialize them first, which makes the statement a third slower.
SELECT pg_catalog.pg_backend_pid()::text || ':' || pg_catalog.string_agg(CASE WHEN CASE a.op
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
    WHEN 'C' THEN true
    END THEN '1' ELSE '0' END, '')
FROM (SELECT pg_catalog.unnest($1::bigint[]) AS key,
             pg_catalog.unnest(pg_catalog.string_to_array($2::text, NULL)) AS op) AS a
