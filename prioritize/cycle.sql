-- Report whether the run that the blocker belongs to waits for this run, directly or
-- through others, so that both are in a cycle, and whether this run is the oldest in
-- it. Postgres sees no deadlock in a cycle of runs that have several sessions each.
--
-- $1: the number of this run, $2: the PID of the blocker
--
-- $3: the class of the locks of runs, $4: that of sessions
WITH RECURSIVE
marks AS MATERIALIZED (
    SELECT l.pid AS watcher, CAST(l.classid AS pg_catalog.int8) AS class, CAST(l.objid AS pg_catalog.int8) AS object
    FROM pg_catalog.pg_locks AS l
    WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.objsubid OPERATOR(pg_catalog.=) 2 AND l.granted
        AND CAST(l.classid AS pg_catalog.int8) OPERATOR(pg_catalog.=) ANY (ARRAY[CAST(CAST($3 AS pg_catalog.text) AS pg_catalog.int8), CAST(CAST($4 AS pg_catalog.text) AS pg_catalog.int8)])
),
-- Runs are ordered by their numbers, and then by the PIDs of their watchers.
runs AS MATERIALIZED (
    SELECT m.watcher, ARRAY[pg_catalog.min(m.object), CAST(m.watcher AS pg_catalog.int8)] AS age
    FROM marks AS m
    WHERE m.class OPERATOR(pg_catalog.=) CAST(CAST($3 AS pg_catalog.text) AS pg_catalog.int8)
    GROUP BY m.watcher
),
members AS MATERIALIZED (
    SELECT m.watcher, CAST(m.object AS pg_catalog.int4) AS pid
    FROM marks AS m JOIN runs AS r ON r.watcher OPERATOR(pg_catalog.=) m.watcher
    WHERE m.class OPERATOR(pg_catalog.=) CAST(CAST($4 AS pg_catalog.text) AS pg_catalog.int8)
),
waits AS MATERIALIZED (
    SELECT DISTINCT m.watcher AS waits, o.watcher AS blocks
    FROM members AS m
        CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(m.pid)) AS b (pid)
        JOIN members AS o ON o.pid OPERATOR(pg_catalog.=) b.pid
    WHERE o.watcher OPERATOR(pg_catalog.<>) m.watcher
),
-- The runs that the blocker's run waits for, each with the oldest run on the path.
ways AS (
    SELECT m.watcher, r.age AS oldest
    FROM members AS m JOIN runs AS r ON r.watcher OPERATOR(pg_catalog.=) m.watcher
    WHERE m.pid OPERATOR(pg_catalog.=) CAST(CAST($2 AS pg_catalog.text) AS pg_catalog.int4)
        AND m.watcher OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
    UNION
    SELECT w.blocks, CASE WHEN r.age OPERATOR(pg_catalog.<) y.oldest THEN r.age ELSE y.oldest END
    FROM ways AS y
        JOIN waits AS w ON w.waits OPERATOR(pg_catalog.=) y.watcher
        JOIN runs AS r ON r.watcher OPERATOR(pg_catalog.=) w.blocks
    WHERE y.watcher OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
)
SELECT CAST(EXISTS (
    SELECT FROM ways AS y
    WHERE y.watcher OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
        AND y.oldest OPERATOR(pg_catalog.=) ARRAY[CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.int8), CAST(pg_catalog.pg_backend_pid() AS pg_catalog.int8)]
) AS pg_catalog.text)
