-- How many of the sessions with the pids $1, an array, still exist.
SELECT pg_catalog.count(*)::text
FROM pg_catalog.pg_stat_get_activity(NULL) a
WHERE a.pid = ANY ($1::text::int[])
