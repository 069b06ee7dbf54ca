-- Return which sessions wait for others, by their PIDs, which are an array as text,
-- such as {11,12}. Each row is the PID and its blockers, 0 for a prepared transaction.
-- Run it in psql with -v pids={11,12}.
SELECT 'edge' AS kind, pg_catalog.concat(x.pid, ' ', pg_catalog.array_to_string(x.blockers, ' ')) AS payload
FROM (
        SELECT w.pid, pg_catalog.pg_blocking_pids(w.pid) AS blockers
        FROM pg_catalog.unnest(CAST(CAST(:'pids' AS pg_catalog.text) AS pg_catalog.int4[])) AS w (pid)
        OFFSET 0 -- call the function once for each
    ) AS x
WHERE pg_catalog.cardinality(x.blockers) OPERATOR(pg_catalog.>) 0;
