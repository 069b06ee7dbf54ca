-- Cancels the wait of another session of ours. $1 is its PID and $2 its start, so that a
-- later backend with the same PID is not hit.
SELECT pg_catalog.pg_backend_pid()::text || ':' || coalesce((
    SELECT pg_catalog.pg_cancel_backend($1::int)::int
    FROM pg_catalog.pg_stat_get_activity($1::int) a
    WHERE pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') = $2::text
), 0)::text
