-- Which of our backends do other sessions wait for to end their transactions, and which
-- of them are gone? CREATE INDEX CONCURRENTLY waits for every session with a snapshot, and
-- so for our sessions that wait for a lock. $1 is the array of our PIDs. The result is the
-- backend's PID, a colon, the PIDs that are waited for, a semicolon, and the PIDs that are
-- gone.
--
-- pg_locks is read only if a session waits for a transaction's end, or if what it waits
-- for is hidden from our role: reading what backends report of themselves costs far less.
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
