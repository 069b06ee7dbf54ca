-- The locks that match the filters, or with pairs, the matching waits and their
-- blockers; otherwise like snapshot.sql. Conditions replace the lines that end in a
-- comment about conditions, and the columns that they compare, which attribute.go
-- has, replace the comments about attributes. The parts between "for conditions" and
-- "end of conditions" are removed if there are none, because planning them takes
-- long. The statement is run only if it has each of these markers exactly once: see
-- fill in sql.go. Run it in psql with -v pairs=t -v crowd=2.
WITH
fresh AS MATERIALIZED (
    SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done
),
-- Columns that not every version has. If the catalog has such a column, it is in a
-- nearer scope of the queries below, and the one here is not used.
absent AS MATERIALIZED (
    SELECT CAST(NULL AS pg_catalog.timestamptz) AS waitstart, -- before 14
        CAST(NULL AS pg_catalog.int4) AS leader_pid, -- before 13
        CAST(NULL AS pg_catalog.int8) AS query_id -- before 14
),
locks AS MATERIALIZED (
    SELECT x.*
    FROM absent CROSS JOIN LATERAL (
        SELECT l.*, CASE WHEN NOT l.granted THEN waitstart END AS wait_began
        FROM pg_catalog.pg_locks AS l
        WHERE l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
            OR l.pid IS NULL
            OR NOT l.granted
            OR NOT (l.locktype OPERATOR(pg_catalog.=) 'virtualxid' AND l.fastpath
                OR l.locktype OPERATOR(pg_catalog.=) 'relation'
                    AND l.mode OPERATOR(pg_catalog.=) 'AccessShareLock'
                    AND CAST(l.relation AS pg_catalog.int8) OPERATOR(pg_catalog.<) 16384)
    ) AS x
),
server AS MATERIALIZED (
    SELECT pg_catalog.current_setting('server_version_num') AS version,
        pg_catalog.pg_is_in_recovery() AS in_recovery,
        t.time,
        CAST(EXTRACT(epoch FROM t.time) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) AS now,
        d.oid AS database_oid,
        d.datname AS database,
        CURRENT_USER AS "user",
        pg_catalog.pg_backend_pid() AS pid,
        pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
        pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS signals_all
    FROM pg_catalog.pg_database AS d
        CROSS JOIN (SELECT pg_catalog.clock_timestamp() AS time OFFSET 0) AS t
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
),
activity AS MATERIALIZED (
    SELECT a.*
    FROM fresh AS f CROSS JOIN LATERAL (
        SELECT s.* FROM pg_catalog.pg_stat_activity AS s
        OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
    ) AS a
),
-- The sessions. The attributes that filters name are in attribute.go; unused ones are
-- not computed. Times and durations are in microseconds.
sessions AS NOT MATERIALIZED (
    SELECT x.*
    FROM server AS v
        CROSS JOIN absent
        CROSS JOIN LATERAL (
            SELECT a.pid AS process, leader_pid AS leader, a.query_start AS query_began
                -- and the attributes of sessions
            FROM activity AS a
        ) AS x
),
waits AS MATERIALIZED (
    SELECT l.* FROM locks AS l WHERE NOT l.granted
),
-- The sessions in long queues, whose blockers are computed: see snapshot.sql.
crowded AS MATERIALIZED (
    SELECT x.pid
    FROM (
        SELECT w.pid, pg_catalog.count(*) OVER same_lock AS length, pg_catalog.count(w.wait_began) OVER same_lock AS known
        FROM waits AS w
        WINDOW same_lock AS (PARTITION BY CAST(ROW (w.locktype, w.database, w.relation, w.page, w.tuple,
            w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid) AS pg_catalog.text))
    ) AS x
    WHERE CAST(:'pairs' AS pg_catalog.bool)
        AND x.length OPERATOR(pg_catalog.>=) CAST(CAST(:'crowd' AS pg_catalog.text) AS pg_catalog.int8)
        AND x.known OPERATOR(pg_catalog.=) x.length
        AND pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
),
-- The locks needed to explain the waits: the holders of the awaited locks, the rows
-- that transactions wait for (see resolveRows), the tables that those transactions
-- write to, and the transaction IDs of prepared transactions.
side_locks AS MATERIALIZED (
    SELECT l.*
    FROM locks AS l
    WHERE l.granted AND (
        CAST(:'pairs' AS pg_catalog.bool)
            -- Comparing one number is fast; a few more rows than needed pass.
            AND COALESCE(l.objid, l.relation, 0) OPERATOR(pg_catalog.=) ANY (
                SELECT COALESCE(w.objid, w.relation, 0) FROM waits AS w)
        OR (l.locktype OPERATOR(pg_catalog.=) 'tuple'
                OR l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock')
            AND l.pid OPERATOR(pg_catalog.=) ANY (
                SELECT w.pid FROM waits AS w WHERE w.locktype OPERATOR(pg_catalog.=) 'transactionid')
        OR l.pid IS NULL AND l.locktype OPERATOR(pg_catalog.=) 'transactionid')
),
awaited_rows AS MATERIALIZED (
    SELECT DISTINCT ON (l.pid) l.pid, l.database, l.relation, l.page, l.tuple
    FROM side_locks AS l
    WHERE l.locktype OPERATOR(pg_catalog.=) 'tuple'
),
matched AS MATERIALIZED (
    SELECT l.*
    FROM (SELECT w.* FROM waits AS w
            UNION ALL
            SELECT g.* FROM locks AS g WHERE g.granted AND NOT CAST(:'pairs' AS pg_catalog.bool)) AS l
        -- for conditions on locks
        CROSS JOIN server AS v
        LEFT JOIN sessions AS a ON a.process OPERATOR(pg_catalog.=) l.pid
        LEFT JOIN awaited_rows AS r ON r.pid OPERATOR(pg_catalog.=) l.pid
            AND NOT l.granted AND l.locktype OPERATOR(pg_catalog.=) 'transactionid'
        CROSS JOIN LATERAL (
            SELECT COALESCE(l.relation, r.relation,
                    CASE WHEN l.locktype OPERATOR(pg_catalog.=) 'object' THEN l.classid END) AS relation,
                CASE WHEN l.locktype OPERATOR(pg_catalog.=) 'object' THEN 0 ELSE COALESCE(l.database, r.database) END AS database,
                CAST(EXTRACT(epoch FROM COALESCE(l.wait_began, CASE WHEN NOT l.granted THEN a.query_began END))
                    OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) AS wait_start
        ) AS o
        LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) o.relation
            AND (o.database OPERATOR(pg_catalog.=) 0 OR o.database OPERATOR(pg_catalog.=) v.database_oid)
        LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        LEFT JOIN pg_catalog.pg_database AS b ON b.oid OPERATOR(pg_catalog.=) o.database
        -- The lock, with the attributes that filters name: see attribute.go.
        CROSS JOIN LATERAL (
            SELECT CASE WHEN o.database OPERATOR(pg_catalog.=) v.database_oid THEN o.relation END AS relation_oid
                -- and the attributes of locks
        ) AS d
        -- end of conditions on locks
    WHERE true
        AND true -- conditions on the lock d and its session a
),
edges AS MATERIALIZED (
    SELECT m.pid, pg_catalog.pg_blocking_pids(m.pid) AS blockers
    FROM (SELECT DISTINCT x.pid FROM matched AS x WHERE NOT x.granted AND x.pid IS NOT NULL) AS m
    WHERE CAST(:'pairs' AS pg_catalog.bool)
        AND NOT m.pid OPERATOR(pg_catalog.=) ANY (SELECT c.pid FROM crowded AS c)
),
-- In long queues, those that may be blockers.
blockers AS MATERIALIZED (
    SELECT pg_catalog.unnest(e.blockers) AS pid
    FROM edges AS e
    UNION
    SELECT c.pid
    FROM crowded AS c
    UNION
    SELECT COALESCE(l.pid, 0)
    FROM side_locks AS l
    WHERE EXISTS (SELECT FROM crowded AS c)
),
blocking AS MATERIALIZED (
    SELECT k.pid
    FROM blockers AS k
        -- for conditions on blockers
        CROSS JOIN server AS v
        LEFT JOIN sessions AS b ON b.process OPERATOR(pg_catalog.=) k.pid
        -- end of conditions on blockers
    WHERE true -- conditions on the blocking session b, or false without any
),
packed AS MATERIALIZED (
    SELECT x.kind, x.pid, x.virtualtransaction, x.locktype, x.database, x.mode, x.granted, x.fastpath,
        pg_catalog.string_agg(CAST(ROW (x.relation, x.page, x.tuple, x.virtualxid, x.transactionid,
            x.classid, x.objid, x.objsubid,
            EXTRACT(epoch FROM x.wait_began)) AS pg_catalog.text), E'\n') AS locks
    FROM (SELECT 'locks' AS kind, m.* FROM matched AS m
        UNION ALL
        SELECT 'side_locks', l.* FROM side_locks AS l
        UNION ALL
        -- The rest of long queues.
        SELECT 'side_locks', w.*
        FROM waits AS w JOIN crowded AS c ON c.pid OPERATOR(pg_catalog.=) w.pid
        WHERE NOT w.pid OPERATOR(pg_catalog.=) ANY (SELECT m.pid FROM matched AS m)) AS x
    GROUP BY x.kind, x.pid, x.virtualtransaction, x.locktype, x.database, x.mode, x.granted, x.fastpath
),
-- A blocker holds the awaited lock or waits for it ahead. That is known without
-- reading the edges, of which a queue has very many. Blockers that came only now are
-- read with sessions.sql.
involved AS MATERIALIZED (
    SELECT p.pid FROM packed AS p
    UNION
    SELECT w.pid
    FROM waits AS w
    WHERE CAST(:'pairs' AS pg_catalog.bool)
        AND COALESCE(w.objid, w.relation, 0) OPERATOR(pg_catalog.=) ANY (
            SELECT COALESCE(m.objid, m.relation, 0) FROM matched AS m)
    UNION
    SELECT k.pid FROM blocking AS k
)
SELECT 'edge' AS kind,
    pg_catalog.concat(e.pid, ' ', pg_catalog.array_to_string(e.blockers, ' ')) AS payload
FROM edges AS e
UNION ALL
-- The blockers that match the filters.
SELECT 'blocking', pg_catalog.concat(k.pid)
FROM blocking AS k
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
    FROM activity AS a
) AS x
WHERE x.pid OPERATOR(pg_catalog.=) ANY (
        SELECT i.pid FROM involved AS i
        UNION ALL
        SELECT w.leader FROM sessions AS w JOIN involved AS i ON i.pid OPERATOR(pg_catalog.=) w.process)
UNION ALL
SELECT 'prepared', CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM pg_catalog.pg_prepared_xacts AS x
WHERE EXISTS (SELECT FROM packed AS p WHERE p.pid IS NULL)
UNION ALL
-- The names of most relations, as in names.sql, which then reads only the missing
-- ones. With an array the index is used.
SELECT 'relation', CAST(ROW (c.oid, n.nspname, c.relkind, c.relname) AS pg_catalog.text)
FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT m.relation FROM matched AS m WHERE m.relation IS NOT NULL
        UNION
        SELECT l.relation FROM side_locks AS l WHERE l.relation IS NOT NULL))
UNION ALL
SELECT p.kind, pg_catalog.concat(CAST(ROW (p.pid, p.virtualtransaction, p.locktype, p.database,
    p.mode, p.granted, p.fastpath) AS pg_catalog.text), E'\n', p.locks)
FROM packed AS p;
