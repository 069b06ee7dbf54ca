-- Signal a session if, and only if, it keeps another one waiting now. It answers
-- with one word that says what came of it; see BlockingOutcome for the words.
--
-- What the signal depends on is read in this statement, and that one blocks the
-- other is asked last, right before the signal. Every name and operator is
-- pg_catalog's own, whatever search_path says. Columns that not every version has
-- are read from the row's JSON. Run it in psql with -v, as in
--   -v waiter=4711 -v waiter_start= -v wait_start= -v blocker=4712
--   -v blocker_start='2026-01-31 12:00:00.123456+00' -v action=cancel
--   -v conflicts='{"ShareLock": ["RowExclusiveLock"]}' -v allowed='{queue}'
WITH
asked AS MATERIALIZED (
    SELECT CAST(CAST(:'waiter' AS pg_catalog.text) AS pg_catalog.int4) AS waiter,
        CAST(CASE WHEN CAST(:'waiter_start' AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN CAST(:'waiter_start' AS pg_catalog.text) END AS pg_catalog.timestamptz) AS waiter_start,
        CAST(CASE WHEN CAST(:'wait_start' AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN CAST(:'wait_start' AS pg_catalog.text) END AS pg_catalog.timestamptz) AS wait_start,
        CAST(CAST(:'blocker' AS pg_catalog.text) AS pg_catalog.int4) AS blocker,
        CAST(CASE WHEN CAST(:'blocker_start' AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN CAST(:'blocker_start' AS pg_catalog.text) END AS pg_catalog.timestamptz) AS blocker_start,
        CAST(:'action' AS pg_catalog.text) AS action,
        CAST(CAST(:'conflicts' AS pg_catalog.text) AS pg_catalog.json) AS conflicts,
        CAST(CAST(:'allowed' AS pg_catalog.text) AS pg_catalog.text[]) AS allowed
),
activity AS MATERIALIZED (
    SELECT a.pid, a.backend_start, a.usesysid, a.backend_type, a.state, a.query,
        CASE WHEN a.backend_type OPERATOR(pg_catalog.=) 'parallel worker' THEN
            CAST(pg_catalog.row_to_json(a) OPERATOR(pg_catalog.->>) 'leader_pid' AS pg_catalog.int4)
        END AS leader_pid
    FROM pg_catalog.pg_stat_get_activity(NULL) AS a
),
waiter AS MATERIALIZED (
    SELECT a.pid
    FROM asked AS q JOIN activity AS a ON a.pid OPERATOR(pg_catalog.=) q.waiter
    WHERE COALESCE(a.backend_start OPERATOR(pg_catalog.=) q.waiter_start, true)
),
-- A role that is not to see when a session began did not see it before either.
blocker AS MATERIALIZED (
    SELECT a.*
    FROM asked AS q JOIN activity AS a ON a.pid OPERATOR(pg_catalog.=) q.blocker
    WHERE COALESCE(a.backend_start OPERATOR(pg_catalog.=) q.blocker_start,
        a.backend_start IS NULL AND q.blocker_start IS NULL)
),
-- Parallel workers count as their leader.
locks AS MATERIALIZED (
    SELECT m.waits, l.granted, l.mode,
        CAST(ROW (l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid,
            l.classid, l.objid, l.objsubid) AS pg_catalog.text) AS object,
        CASE WHEN NOT l.granted THEN
            CAST(pg_catalog.row_to_json(l) OPERATOR(pg_catalog.->>) 'waitstart' AS pg_catalog.timestamptz)
        END AS wait_start
    FROM pg_catalog.pg_locks AS l JOIN (
        SELECT a.pid, COALESCE(a.leader_pid, a.pid) OPERATOR(pg_catalog.=) q.waiter AS waits
        FROM asked AS q JOIN activity AS a
            ON COALESCE(a.leader_pid, a.pid) OPERATOR(pg_catalog.=) q.waiter
            OR COALESCE(a.leader_pid, a.pid) OPERATOR(pg_catalog.=) q.blocker
    ) AS m ON m.pid OPERATOR(pg_catalog.=) l.pid
),
awaited AS MATERIALIZED (
    SELECT l.object, l.mode, l.wait_start FROM locks AS l WHERE l.waits AND NOT l.granted
)
SELECT CASE
    WHEN NOT EXISTS (SELECT FROM blocker) THEN 'gone'
    WHEN q.blocker OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() THEN 'own'
    WHEN NOT EXISTS (SELECT FROM waiter)
        OR NOT q.blocker OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(q.waiter))
        -- It waits again, for something else.
        OR EXISTS (SELECT FROM awaited AS w WHERE w.wait_start OPERATOR(pg_catalog.<>) q.wait_start)
        THEN 'unblocked'
    WHEN EXISTS (SELECT FROM blocker AS b WHERE b.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker')
        AND NOT 'autovacuum' OPERATOR(pg_catalog.=) ANY (q.allowed)
        THEN CASE WHEN EXISTS (SELECT FROM blocker AS b
                WHERE b.query OPERATOR(pg_catalog.~) '\(to prevent wraparound\)')
            THEN 'wraparound' ELSE 'autovacuum' END
    -- What is no client's has no role, or says what it is if we are to know.
    WHEN EXISTS (SELECT FROM blocker AS b
            WHERE b.usesysid IS NULL AND COALESCE(b.backend_type, '') OPERATOR(pg_catalog.<>) 'autovacuum worker'
                OR b.backend_type OPERATOR(pg_catalog.<>) ALL (ARRAY['client backend', 'autovacuum worker'])
                OR EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_senders() AS s WHERE s.pid OPERATOR(pg_catalog.=) b.pid))
        AND NOT 'background' OPERATOR(pg_catalog.=) ANY (q.allowed)
        THEN 'background'
    WHEN EXISTS (SELECT FROM blocker AS b
            JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) b.usesysid WHERE r.rolsuper)
        AND NOT 'superuser' OPERATOR(pg_catalog.=) ANY (q.allowed)
        THEN 'superuser'
    -- It stands ahead in the queue, and holds nothing that is in the way.
    WHEN NOT 'queue' OPERATOR(pg_catalog.=) ANY (q.allowed)
        AND EXISTS (SELECT FROM awaited AS w JOIN locks AS l ON l.object OPERATOR(pg_catalog.=) w.object
            WHERE NOT l.waits AND NOT l.granted)
        AND NOT EXISTS (SELECT FROM awaited AS w JOIN locks AS l ON l.object OPERATOR(pg_catalog.=) w.object
            WHERE NOT l.waits AND l.granted AND l.mode OPERATOR(pg_catalog.=) ANY (ARRAY(
                SELECT pg_catalog.json_array_elements_text(q.conflicts OPERATOR(pg_catalog.->) w.mode))))
        THEN 'queued'
    WHEN q.action OPERATOR(pg_catalog.=) 'cancel'
        AND EXISTS (SELECT FROM blocker AS b WHERE pg_catalog.starts_with(b.state, 'idle'))
        THEN 'idle'
    WHEN q.action OPERATOR(pg_catalog.=) '' THEN 'due'
    WHEN NOT q.blocker OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(q.waiter)) THEN 'unblocked'
    WHEN q.action OPERATOR(pg_catalog.=) 'cancel' THEN
        CASE WHEN pg_catalog.pg_cancel_backend(q.blocker) THEN 'signalled' ELSE 'gone' END
    WHEN q.action OPERATOR(pg_catalog.=) 'terminate' THEN
        CASE WHEN pg_catalog.pg_terminate_backend(q.blocker) THEN 'signalled' ELSE 'gone' END
    ELSE 'unknown action'
END
FROM asked AS q;
