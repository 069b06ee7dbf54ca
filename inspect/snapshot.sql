-- Return a snapshot of the locks of a server: the locks that sessions hold and wait
-- for, the blockers, and the sessions. Runs unchanged in psql with -v crowd=2, on
-- Postgres 12 to 18. Each row is the kind of the row and its payload as text.
--
-- pg_locks is read once and packed into one text for all locks of the same session
-- and kind, which is much faster than one row per lock. Then pg_blocking_pids is
-- called for waiting sessions only, and then the rest is read, so that the moments are
-- close together. If crowd or more sessions wait for the same lock, their blockers are
-- computed from the rows of pg_locks instead: see queue.go. All names and operators are
-- qualified with pg_catalog, so search_path does not matter. No user table is locked.
WITH
-- Columns that not every version has. If the catalog has such a column, it is in a
-- nearer scope of the queries below, and the one here is not used.
absent AS MATERIALIZED (
    SELECT CAST(NULL AS pg_catalog.timestamptz) AS waitstart, -- before 14
        CAST(NULL AS pg_catalog.int4) AS leader_pid, -- before 13
        CAST(NULL AS pg_catalog.int8) AS query_id -- before 14
),
held AS MATERIALIZED (
    SELECT x.*
    FROM absent CROSS JOIN LATERAL (
        SELECT l.pid, l.virtualtransaction, l.locktype, l.database, l.mode, l.granted, l.fastpath,
            pg_catalog.string_agg(CAST(ROW (l.relation, l.page, l.tuple, l.virtualxid, l.transactionid,
                l.classid, l.objid, l.objsubid,
                CASE WHEN NOT l.granted THEN EXTRACT(epoch FROM waitstart) END) AS pg_catalog.text), E'\n') AS locks
        FROM pg_catalog.pg_locks AS l
        -- All locks except those of this statement: on the catalogs it reads and on
        -- its own virtual transaction ID, unless a session waits for one of them.
        WHERE l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
            OR l.pid IS NULL
            OR NOT l.granted
            OR NOT (l.locktype OPERATOR(pg_catalog.=) 'virtualxid' AND l.fastpath
                OR l.locktype OPERATOR(pg_catalog.=) 'relation'
                    AND l.mode OPERATOR(pg_catalog.=) 'AccessShareLock'
                    AND CAST(l.relation AS pg_catalog.int8) OPERATOR(pg_catalog.<) 16384)
        GROUP BY l.pid, l.virtualtransaction, l.locktype, l.database, l.mode, l.granted, l.fastpath
    ) AS x
),
edges AS MATERIALIZED (
    SELECT w.pid, pg_catalog.pg_blocking_pids(w.pid) AS blockers
    FROM (
        SELECT h.pid, pg_catalog.count(*) OVER same_lock AS length,
            pg_catalog.count(*) FILTER (WHERE pg_catalog."right"(h.locks, 2) OPERATOR(pg_catalog.=) ',)') OVER same_lock AS unknown
        FROM held AS h
        WHERE NOT h.granted AND h.pid IS NOT NULL
        -- A session waits for one lock at most, so locks has one line: the lock, and after
        -- the last comma when the wait began, which is missing for a moment.
        WINDOW same_lock AS (PARTITION BY h.locktype, h.database, pg_catalog."substring"(h.locks, '^.*,'))
    ) AS w
    WHERE true -- edges
        AND (w.length OPERATOR(pg_catalog.<) CAST(CAST(:'crowd' AS pg_catalog.text) AS pg_catalog.int8)
            OR w.unknown OPERATOR(pg_catalog.>) 0
            -- Otherwise parallel workers cannot be recognized.
            OR NOT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'))
),
-- Within a transaction, pg_stat_activity does not change after the first read.
fresh AS MATERIALIZED (
    SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done
),
server AS MATERIALIZED (
    SELECT pg_catalog.current_setting('server_version_num') AS version,
        pg_catalog.pg_is_in_recovery() AS in_recovery,
        pg_catalog.clock_timestamp() AS time,
        d.oid AS database_oid,
        d.datname AS database,
        CURRENT_USER AS "user",
        pg_catalog.pg_backend_pid() AS pid,
        pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
        pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS signals_all
    FROM pg_catalog.pg_database AS d
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
)
SELECT 'edge' AS kind,
    pg_catalog.concat(e.pid, ' ', pg_catalog.array_to_string(e.blockers, ' ')) AS payload
FROM edges AS e
UNION ALL
SELECT 'server', CAST(pg_catalog.row_to_json(v) AS pg_catalog.text)
FROM server AS v
UNION ALL
SELECT 'session', x.payload
FROM absent CROSS JOIN LATERAL (
    SELECT a.pid, CAST(ROW (a.pid, leader_pid, a.usename, a.datname, a.application_name, a.client_addr,
        a.backend_type, a.state, a.wait_event_type, a.wait_event, query_id,
        CAST(EXTRACT(epoch FROM a.backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        CAST(EXTRACT(epoch FROM a.xact_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        CAST(EXTRACT(epoch FROM a.query_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        CAST(EXTRACT(epoch FROM a.state_change) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        a.client_hostname, a.client_port, a.backend_xid, a.backend_xmin,
        pg_catalog.age(a.backend_xid), pg_catalog.age(a.backend_xmin),
        a.query) AS pg_catalog.text) AS payload
    FROM fresh AS f CROSS JOIN LATERAL (
        SELECT s.* FROM pg_catalog.pg_stat_activity AS s
        OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
    ) AS a
) AS x
-- A blocker has a lock too, or came only now and is read with sessions.sql.
WHERE x.pid OPERATOR(pg_catalog.=) ANY (SELECT h.pid FROM held AS h)
UNION ALL
SELECT 'prepared', CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM pg_catalog.pg_prepared_xacts AS x
WHERE EXISTS (SELECT FROM held AS h WHERE h.pid IS NULL)
UNION ALL
-- One line that the locks share, and one line for each of them.
SELECT 'locks', pg_catalog.concat(CAST(ROW (h.pid, h.virtualtransaction, h.locktype, h.database,
    h.mode, h.granted, h.fastpath) AS pg_catalog.text), E'\n', h.locks)
FROM held AS h;
