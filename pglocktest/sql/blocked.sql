-- Whether the session with the pid $1 waits for somebody: its blockers' pids with
-- spaces between them, or nothing.
SELECT pg_catalog.array_to_string(pg_catalog.pg_blocking_pids($1::text::int), ' ')
