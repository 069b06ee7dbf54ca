-- Signal a session if, and only if, it blocks another one now. Returns one word: what
-- was done, or why not.
--
-- This statement also reads everything that the signal depends on, and checks last,
-- right before the signal, that one blocks the other. All names and operators are
-- qualified with pg_catalog, so search_path does not matter. Columns that not every
-- version has are read from the row's JSON.
--
-- All parameters are text, and '' if unknown. $1: the PID of the waiter, $2: its
-- backend_start, $3: its virtual transaction ID, $4: when its wait began; $5: the PID
-- of the blocker, $6: its backend_start, $7: its virtual transaction ID; $8: cancel,
-- terminate, '' for neither, or warm up to read everything and signal nobody; $9: the conflicting modes of each mode, as JSON; $10:
-- the allowed classes, as an array, with queue for sessions that are only ahead in
-- the lock queue; $11 and $12: the classes of the locks that mark a run and its
-- sessions.
WITH
asked AS MATERIALIZED (
    SELECT CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.int4) AS waiter,
        CAST(CASE WHEN CAST($2 AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN CAST($2 AS pg_catalog.text) END AS pg_catalog.timestamptz) AS waiter_start,
        CAST($3 AS pg_catalog.text) AS waiter_transaction,
        CAST(CASE WHEN CAST($4 AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN CAST($4 AS pg_catalog.text) END AS pg_catalog.timestamptz) AS wait_start,
        CAST(CAST($5 AS pg_catalog.text) AS pg_catalog.int4) AS blocker,
        CAST(CASE WHEN CAST($6 AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN CAST($6 AS pg_catalog.text) END AS pg_catalog.timestamptz) AS blocker_start,
        CAST($7 AS pg_catalog.text) AS blocker_transaction,
        CAST($8 AS pg_catalog.text) AS action,
        CAST(CAST($9 AS pg_catalog.text) AS pg_catalog.json) AS conflicts,
        CAST(CAST($10 AS pg_catalog.text) AS pg_catalog.text[]) AS allowed
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
-- A role that may not see when a session began did not see it earlier either.
blocker AS MATERIALIZED (
    SELECT a.*
    FROM asked AS q JOIN activity AS a ON a.pid OPERATOR(pg_catalog.=) q.blocker
    WHERE COALESCE(a.backend_start OPERATOR(pg_catalog.=) q.blocker_start,
        a.backend_start IS NULL AND q.blocker_start IS NULL)
),
all_locks AS MATERIALIZED (
    SELECT l.* FROM pg_catalog.pg_locks AS l
),
-- Parallel workers count as their leader.
locks AS MATERIALIZED (
    SELECT m.waits, l.pid, l.virtualtransaction, l.granted, l.mode,
        CAST(ROW (l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid,
            l.classid, l.objid, l.objsubid) AS pg_catalog.text) AS object,
        CASE WHEN NOT l.granted THEN
            CAST(pg_catalog.row_to_json(l) OPERATOR(pg_catalog.->>) 'waitstart' AS pg_catalog.timestamptz)
        END AS wait_start
    FROM all_locks AS l JOIN (
        SELECT a.pid, COALESCE(a.leader_pid, a.pid) OPERATOR(pg_catalog.=) q.waiter AS waits
        FROM asked AS q JOIN activity AS a
            ON COALESCE(a.leader_pid, a.pid) OPERATOR(pg_catalog.=) q.waiter
            OR COALESCE(a.leader_pid, a.pid) OPERATOR(pg_catalog.=) q.blocker
    ) AS m ON m.pid OPERATOR(pg_catalog.=) l.pid
),
awaited AS MATERIALIZED (
    SELECT l.object, l.mode, l.wait_start, l.virtualtransaction FROM locks AS l WHERE l.waits AND NOT l.granted
),
-- The blocker's locks that conflict with the wait.
obstacles AS MATERIALIZED (
    SELECT w.wait_start
    FROM awaited AS w JOIN locks AS l ON l.object OPERATOR(pg_catalog.=) w.object
    WHERE NOT l.waits AND l.granted AND l.mode OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT pg_catalog.json_array_elements_text(q.conflicts OPERATOR(pg_catalog.->) w.mode) FROM asked AS q))
),
-- Sessions that another run of prioritize has marked, and the watchers that have
-- marked them: see prioritize/mark.go. A mark counts only if its owner could signal
-- us as well, because it has our role, is a superuser, or has the rights for it: such
-- a role has no reason to deceive us.
ours AS MATERIALIZED (
    SELECT r.oid, r.rolsuper
    FROM pg_catalog.pg_roles AS r
    WHERE r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[SESSION_USER, CURRENT_USER])
),
marks AS MATERIALIZED (
    SELECT l.pid AS watcher, CAST(l.classid AS pg_catalog.int8) AS class, CAST(l.objid AS pg_catalog.int8) AS object
    FROM all_locks AS l
    WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.objsubid OPERATOR(pg_catalog.=) 2 AND l.granted
        AND l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
        AND CAST(l.classid AS pg_catalog.text) OPERATOR(pg_catalog.=) ANY (
            ARRAY[CAST($11 AS pg_catalog.text), CAST($12 AS pg_catalog.text)])
),
other_runs AS MATERIALIZED (
    SELECT w.pid
    FROM marks AS m
        JOIN activity AS w ON w.pid OPERATOR(pg_catalog.=) m.watcher
        JOIN pg_catalog.pg_roles AS h ON h.oid OPERATOR(pg_catalog.=) w.usesysid
    WHERE CAST(m.class AS pg_catalog.text) OPERATOR(pg_catalog.=) CAST($11 AS pg_catalog.text)
        AND (h.rolsuper OR EXISTS (SELECT FROM ours AS o
            WHERE o.oid OPERATOR(pg_catalog.=) h.oid
                OR NOT o.rolsuper AND (pg_catalog.pg_has_role(h.oid, o.oid, 'USAGE')
                    OR pg_catalog.pg_has_role(h.oid, 'pg_signal_backend', 'USAGE'))))
)
SELECT CASE
    WHEN q.action OPERATOR(pg_catalog.=) 'warm up' THEN CASE WHEN
        (SELECT pg_catalog.count(*) FROM locks) OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM obstacles)
            OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM other_runs)
            OPERATOR(pg_catalog.+) pg_catalog.cardinality(pg_catalog.pg_blocking_pids(q.waiter)) OPERATOR(pg_catalog.>=) 0
        THEN 'self' END
    WHEN NOT EXISTS (SELECT FROM blocker) THEN 'gone'
    WHEN q.blocker OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() THEN 'self'
    WHEN NOT EXISTS (SELECT FROM waiter)
        OR NOT q.blocker OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(q.waiter))
        -- It waits again, for something else.
        OR EXISTS (SELECT FROM awaited AS w WHERE w.wait_start OPERATOR(pg_catalog.<>) q.wait_start
            OR q.waiter_transaction OPERATOR(pg_catalog.<>) '' AND w.virtualtransaction OPERATOR(pg_catalog.<>) q.waiter_transaction)
        THEN 'not blocking'
    WHEN NOT 'runs' OPERATOR(pg_catalog.=) ANY (q.allowed)
        AND (EXISTS (SELECT FROM other_runs AS o WHERE o.pid OPERATOR(pg_catalog.=) q.blocker)
            OR EXISTS (SELECT FROM other_runs AS o JOIN marks AS m ON m.watcher OPERATOR(pg_catalog.=) o.pid
                WHERE CAST(m.class AS pg_catalog.text) OPERATOR(pg_catalog.=) CAST($12 AS pg_catalog.text)
                    AND m.object OPERATOR(pg_catalog.=) q.blocker))
        THEN 'runs'
    WHEN EXISTS (SELECT FROM blocker AS b WHERE b.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker')
        AND NOT 'autovacuum' OPERATOR(pg_catalog.=) ANY (q.allowed)
        THEN CASE WHEN EXISTS (SELECT FROM blocker AS b
                WHERE b.query OPERATOR(pg_catalog.~) '\(to prevent wraparound\)')
            THEN 'wraparound' ELSE 'autovacuum' END
    -- A process that is not a client backend has no role, or reports its type if our
    -- role may see it.
    WHEN EXISTS (SELECT FROM blocker AS b
            WHERE b.usesysid IS NULL AND COALESCE(b.backend_type, '') OPERATOR(pg_catalog.<>) 'autovacuum worker'
                OR b.backend_type OPERATOR(pg_catalog.<>) ALL (ARRAY['client backend', 'autovacuum worker'])
                OR EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_senders() AS s WHERE s.pid OPERATOR(pg_catalog.=) b.pid))
        AND NOT 'background' OPERATOR(pg_catalog.=) ANY (q.allowed)
        THEN 'background'
    WHEN EXISTS (SELECT FROM blocker AS b
            JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) b.usesysid
            -- Membership in a superuser's role does not make its sessions ours, and
            -- every superuser is a member of all roles. So compare the role itself.
            WHERE r.rolsuper AND NOT EXISTS (SELECT FROM ours AS o WHERE o.oid OPERATOR(pg_catalog.=) r.oid))
        AND NOT 'superusers' OPERATOR(pg_catalog.=) ANY (q.allowed)
        THEN 'superusers'
    -- It is ahead in the lock queue and holds no conflicting lock.
    WHEN NOT 'queue' OPERATOR(pg_catalog.=) ANY (q.allowed)
        AND EXISTS (SELECT FROM awaited AS w JOIN locks AS l ON l.object OPERATOR(pg_catalog.=) w.object
            WHERE NOT l.waits AND NOT l.granted)
        AND NOT EXISTS (SELECT FROM obstacles)
        THEN 'queued'
    -- Its start is hidden, so another session may have its PID by now. The
    -- transaction that was seen is proof, since a virtual transaction ID is not
    -- reused. So is the wait that was seen, since no session acquires a lock past a
    -- conflicting waiter.
    WHEN q.blocker_start IS NULL
        AND NOT EXISTS (SELECT FROM locks AS l WHERE l.pid OPERATOR(pg_catalog.=) q.blocker
            AND l.virtualtransaction OPERATOR(pg_catalog.=) q.blocker_transaction)
        AND NOT EXISTS (SELECT FROM obstacles AS w WHERE w.wait_start OPERATOR(pg_catalog.=) q.wait_start)
        THEN 'hidden'
    WHEN q.action OPERATOR(pg_catalog.=) 'cancel'
        AND EXISTS (SELECT FROM blocker AS b WHERE pg_catalog.starts_with(b.state, 'idle'))
        THEN 'idle'
    WHEN q.action OPERATOR(pg_catalog.=) '' THEN 'due'
    WHEN NOT q.blocker OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(q.waiter)) THEN 'not blocking'
    WHEN q.action OPERATOR(pg_catalog.=) 'cancel' THEN
        CASE WHEN pg_catalog.pg_cancel_backend(q.blocker) THEN 'signaled' ELSE 'gone' END
    WHEN q.action OPERATOR(pg_catalog.=) 'terminate' THEN
        CASE WHEN pg_catalog.pg_terminate_backend(q.blocker) THEN 'signaled' ELSE 'gone' END
    ELSE 'unknown action'
END
FROM asked AS q;
