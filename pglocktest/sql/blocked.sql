-- The pids of the sessions that block the session with the pid $1, separated by spaces,
-- or nothing.
SELECT pg_catalog.array_to_string(pg_catalog.pg_blocking_pids($1::text::int), ' ')
