-- The sessions that have been idle in a transaction for longer than :'age', in seconds,
-- the longest first, and how many locks each holds. Run it in psql with -v age=60.
SELECT CAST(COALESCE(pg_catalog.json_agg(pg_catalog.row_to_json(x)), '[]') AS pg_catalog.text)
FROM (
    SELECT a.pid, a.application_name AS application, a.usename AS "user", a.datname AS database,
        EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.state_change) AS age,
        CAST(EXTRACT(epoch FROM a.xact_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) AS xact_start,
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks AS l
            WHERE l.pid OPERATOR(pg_catalog.=) a.pid
                -- other than on its own IDs
                AND NOT l.locktype OPERATOR(pg_catalog.=) ANY (ARRAY['virtualxid', 'transactionid'])) AS locks
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.state OPERATOR(pg_catalog.=) ANY (ARRAY['idle in transaction', 'idle in transaction (aborted)'])
        AND EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.state_change)
            OPERATOR(pg_catalog.>=) CAST(CAST(:'age' AS pg_catalog.text) AS pg_catalog.float8)
    ORDER BY a.state_change, a.pid
) AS x;
