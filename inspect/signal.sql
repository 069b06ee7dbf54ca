-- Cancel the statement of a session, or terminate the session, if it is still the one
-- that was meant: the same PID with the same backend_start and, if waiters are given,
-- still blocking one of them. If backend_start is hidden, another session may have
-- the PID by now. Then the transaction that held the lock must still be running (its
-- virtual transaction ID is not reused), or the session must still block a wait that
-- was seen (no session acquires a lock past a conflicting waiter); otherwise it is
-- not signaled. Returns what it found and did.
--
-- Run it in psql with -v action=terminate -v pid=1 -v start=1700000000000000 -v
-- named=true -v user=bob -v database=shop -v transaction= -v waiters='{}' -v
-- waits='{}' -v allow='{}'; any other action only checks. named is false if user or
-- database cannot be compared. waits are the microseconds at which the waiters began
-- to wait, 0 if unknown.
WITH
-- Within a transaction, pg_stat_activity does not change after the first read.
fresh AS MATERIALIZED (
    SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done
),
asked AS MATERIALIZED (
    SELECT CAST(:'action' AS pg_catalog.text) AS action,
        CAST(CAST(:'pid' AS pg_catalog.text) AS pg_catalog.int4) AS pid,
        CAST(CAST(:'start' AS pg_catalog.text) AS pg_catalog.int8) AS start, -- 0 if hidden
        CAST(CAST(:'named' AS pg_catalog.text) AS pg_catalog.bool) AS named,
        CAST(:'user' AS pg_catalog.text) AS "user",
        CAST(:'database' AS pg_catalog.text) AS database,
        CAST(:'transaction' AS pg_catalog.text) AS transaction, -- '' if it proves nothing
        CAST(CAST(:'waiters' AS pg_catalog.text) AS pg_catalog.int4[]) AS waiters,
        CAST(CAST(:'waits' AS pg_catalog.text) AS pg_catalog.int8[]) AS waits,
        CAST(CAST(:'allow' AS pg_catalog.text) AS pg_catalog.text[]) AS allow
),
found AS MATERIALIZED (
    SELECT s.pid, s.usesysid, s.backend_type, s.state,
        (NOT q.named
                OR COALESCE(CAST(s.usename AS pg_catalog.text), '') OPERATOR(pg_catalog.=) q."user"
                AND COALESCE(CAST(s.datname AS pg_catalog.text), '') OPERATOR(pg_catalog.=) q.database)
            AND COALESCE(CAST(EXTRACT(epoch FROM s.backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8), 0)
                OPERATOR(pg_catalog.=) q.start AS same,
        COALESCE(pg_catalog.strpos(s.query, 'to prevent wraparound') OPERATOR(pg_catalog.>) 0, false) AS wraparound,
        COALESCE(r.rolsuper, true) AS super,
        COALESCE(r.rolreplication, false) AS replicates
    FROM fresh AS f
        CROSS JOIN asked AS q
        CROSS JOIN LATERAL (
            SELECT a.*
            FROM pg_catalog.pg_stat_activity AS a
            WHERE a.pid OPERATOR(pg_catalog.=) q.pid
            OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
        ) AS s
        LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) s.usesysid
),
checked AS MATERIALIZED (
    SELECT f.*, q.action, CURRENT_USER AS me,
        q.start OPERATOR(pg_catalog.<>) 0
            OR EXISTS (SELECT FROM pg_catalog.pg_locks AS l
                WHERE l.pid OPERATOR(pg_catalog.=) q.pid AND l.virtualtransaction OPERATOR(pg_catalog.=) q.transaction)
            -- Before Postgres 14 there is no waitstart.
            OR EXISTS (
                SELECT FROM ROWS FROM (pg_catalog.unnest(q.waiters), pg_catalog.unnest(q.waits)) AS w (pid, began)
                    JOIN pg_catalog.pg_locks AS l ON l.pid OPERATOR(pg_catalog.=) w.pid AND NOT l.granted
                WHERE CAST(EXTRACT(epoch FROM CAST(pg_catalog.row_to_json(l) OPERATOR(pg_catalog.->>) 'waitstart' AS pg_catalog.timestamptz))
                        OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) OPERATOR(pg_catalog.=) w.began
                    AND q.pid OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(w.pid)))
            AS proved,
        pg_catalog.cardinality(q.waiters) OPERATOR(pg_catalog.=) 0 OR EXISTS (
            SELECT FROM pg_catalog.unnest(q.waiters) AS w (pid)
            WHERE q.pid OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids(w.pid))) AS blocks,
        CASE
            WHEN 'self' OPERATOR(pg_catalog.=) ANY (q.allow) THEN NULL
            WHEN f.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() THEN 'self'
        END AS self,
        CASE
            WHEN f.backend_type OPERATOR(pg_catalog.=) 'client backend' THEN NULL
            WHEN f.backend_type IS NULL AND (f.super OR NOT f.replicates) THEN NULL -- hidden
            WHEN f.backend_type IS NULL OR f.backend_type OPERATOR(pg_catalog.=) 'walsender' THEN
                CASE WHEN NOT 'walsender' OPERATOR(pg_catalog.=) ANY (q.allow) THEN 'walsender' END
            WHEN f.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker' THEN
                CASE WHEN NOT 'autovacuum' OPERATOR(pg_catalog.=) ANY (q.allow) THEN 'autovacuum' END
            WHEN NOT 'background' OPERATOR(pg_catalog.=) ANY (q.allow) THEN 'background'
        END AS kind,
        q.action OPERATOR(pg_catalog.=) 'cancel'
            AND f.state OPERATOR(pg_catalog.=) ANY (ARRAY['idle', 'idle in transaction', 'idle in transaction (aborted)']) AS idle,
        m.rolsuper OR CASE
            WHEN f.backend_type OPERATOR(pg_catalog.=) 'autovacuum worker' THEN COALESCE(( -- from Postgres 18 on
                SELECT pg_catalog.pg_has_role(g.oid, 'USAGE')
                FROM pg_catalog.pg_roles AS g
                WHERE g.rolname OPERATOR(pg_catalog.=) 'pg_signal_autovacuum_worker'), false)
            ELSE NOT f.super AND (pg_catalog.pg_has_role(f.usesysid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))
        END AS permitted
    FROM found AS f
        CROSS JOIN asked AS q
        JOIN pg_catalog.pg_roles AS m ON m.rolname OPERATOR(pg_catalog.=) CURRENT_USER
),
-- CASE evaluates the signal last, so it is sent only if all conditions hold.
signaled AS MATERIALIZED (
    SELECT j.*,
        CASE
            WHEN j.same AND j.blocks AND j.self IS NULL AND j.kind IS NULL AND j.idle IS NOT TRUE AND j.permitted AND j.proved THEN
                CASE
                    WHEN j.action OPERATOR(pg_catalog.=) 'cancel' THEN pg_catalog.pg_cancel_backend(j.pid)
                    WHEN j.action OPERATOR(pg_catalog.=) 'terminate' THEN pg_catalog.pg_terminate_backend(j.pid)
                END
        END AS signaled
    FROM checked AS j
)
SELECT 'victim' AS kind, CAST(pg_catalog.row_to_json(s) AS pg_catalog.text) AS payload
FROM signaled AS s;
