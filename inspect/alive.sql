-- Return which sessions still exist, by PID and backend_start in microseconds (0 if
-- hidden). Run it in psql with -v pids={1,2} -v starts={0,0}.
SELECT 'alive' AS kind, CAST(v.number OPERATOR(pg_catalog.-) 1 AS pg_catalog.text) AS payload
FROM (SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done OFFSET 0) AS f
    CROSS JOIN ROWS FROM (
        pg_catalog.unnest(CAST(CAST(:'pids' AS pg_catalog.text) AS pg_catalog.int4[])),
        pg_catalog.unnest(CAST(CAST(:'starts' AS pg_catalog.text) AS pg_catalog.int8[]))
    ) WITH ORDINALITY AS v (pid, start, number)
    CROSS JOIN LATERAL (
        SELECT a.backend_start
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.pid OPERATOR(pg_catalog.=) v.pid
        OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
    ) AS s
WHERE COALESCE(CAST(EXTRACT(epoch FROM s.backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8), 0)
    OPERATOR(pg_catalog.=) v.start;
