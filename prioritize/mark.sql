-- Mark a run and its sessions with shared advisory locks of the watcher's session,
-- which nothing waits for. Returns the number of the run.
--
-- $1: the number of the run, 0 for a new one, which gets the seconds since 2020
--
-- $2: JSON with the PIDs to add and to remove
--
-- $3: the class of the locks of runs, $4: that of sessions
WITH
run AS MATERIALIZED (
    SELECT CASE WHEN CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.int4) OPERATOR(pg_catalog.<>) 0 THEN CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.int4)
        ELSE CAST(EXTRACT(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.-) 1577836800 AS pg_catalog.int4) END AS number
),
held AS MATERIALIZED (
    SELECT CAST(l.classid AS pg_catalog.int8) AS class, CAST(l.objid AS pg_catalog.int8) AS object
    FROM pg_catalog.pg_locks AS l
    WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
        AND l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.objsubid OPERATOR(pg_catalog.=) 2
),
wanted AS MATERIALIZED (
    SELECT CAST(CAST($3 AS pg_catalog.text) AS pg_catalog.int4) AS class, r.number AS object FROM run AS r
    UNION
    SELECT CAST(CAST($4 AS pg_catalog.text) AS pg_catalog.int4), CAST(x.pid AS pg_catalog.int4)
    FROM pg_catalog.json_array_elements_text(CAST(CAST($2 AS pg_catalog.text) AS pg_catalog.json) OPERATOR(pg_catalog.->) 'add') AS x (pid)
),
added AS MATERIALIZED (
    SELECT pg_catalog.count(pg_catalog.pg_try_advisory_lock_shared(w.class, w.object)) AS number
    FROM wanted AS w
    WHERE NOT EXISTS (SELECT FROM held AS h
        WHERE h.class OPERATOR(pg_catalog.=) w.class AND h.object OPERATOR(pg_catalog.=) w.object)
),
removed AS MATERIALIZED (
    SELECT pg_catalog.count(pg_catalog.pg_advisory_unlock_shared(CAST(CAST($4 AS pg_catalog.text) AS pg_catalog.int4), CAST(x.pid AS pg_catalog.int4))) AS number
    FROM pg_catalog.json_array_elements_text(CAST(CAST($2 AS pg_catalog.text) AS pg_catalog.json) OPERATOR(pg_catalog.->) 'remove') AS x (pid)
)
SELECT CAST(r.number AS pg_catalog.text)
FROM run AS r CROSS JOIN added AS a CROSS JOIN removed AS d
WHERE a.number OPERATOR(pg_catalog.+) d.number OPERATOR(pg_catalog.>=) 0
