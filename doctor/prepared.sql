-- The transactions that were prepared for two-phase commit longer ago than :'age', in
-- seconds, the oldest first. Run it in psql with -v age=60.
SELECT CAST(COALESCE(pg_catalog.json_agg(pg_catalog.row_to_json(x)), '[]') AS pg_catalog.text)
FROM (
    SELECT p.gid, p.owner, p.database,
        EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.prepared) AS age
    FROM pg_catalog.pg_prepared_xacts AS p
    WHERE EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.prepared)
        OPERATOR(pg_catalog.>=) CAST(CAST(:'age' AS pg_catalog.text) AS pg_catalog.float8)
    ORDER BY p.prepared, p.gid
) AS x;
