-- Which of our sessions keep others waiting for the end of their transactions, as
-- CREATE INDEX CONCURRENTLY waits for everybody who has a snapshot, and so for those
-- who wait for a lock? And which of them are gone, though nobody told us? $1 are our
-- backends' pids, as an array. The answer is the backend's pid, a colon, the pids of
-- those that are waited for, a semicolon, and the pids of those that are gone.
--
-- pg_locks is only read if a session waits for such an end, or if what it waits for is
-- hidden from our role: what backends report of themselves costs far less.
WITH activity AS MATERIALIZED (
    SELECT a.pid, a.wait_event, a.query FROM pg_catalog.pg_stat_get_activity(NULL) a
)
SELECT pg_catalog.pg_backend_pid()::text || ':' || CASE WHEN EXISTS (
    SELECT FROM activity a WHERE a.wait_event = 'virtualxid' OR a.query = '<insufficient privilege>'
) THEN coalesce((
    SELECT pg_catalog.string_agg(DISTINCT h.pid::text, ',')
    FROM pg_catalog.pg_locks h
    JOIN pg_catalog.pg_locks w ON w.locktype = 'virtualxid' AND NOT w.granted AND w.virtualxid = h.virtualxid
    WHERE h.locktype = 'virtualxid' AND h.granted AND h.pid = ANY ($1::text::int4[])
), '') ELSE '' END || ';' || coalesce((
    SELECT pg_catalog.string_agg(o.pid::text, ',')
    FROM pg_catalog.unnest($1::text::int4[]) AS o (pid)
    WHERE NOT EXISTS (SELECT FROM activity a WHERE a.pid = o.pid)
), '')
