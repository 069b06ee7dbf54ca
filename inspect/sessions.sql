-- Sessions by their numbers, which are an array as text, such as {11,12}: those that
-- came between the parts of a reading. Run it in psql with -v pids={11,12}.
WITH
-- In a transaction pg_stat_activity stays as it was when first read.
fresh AS MATERIALIZED (
    SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done
)
SELECT 'session' AS what, CAST(pg_catalog.row_to_json(a) AS pg_catalog.text) AS that
FROM fresh AS f CROSS JOIN LATERAL (
    SELECT s.* FROM pg_catalog.pg_stat_activity AS s
    OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
) AS a
WHERE a.pid OPERATOR(pg_catalog.=) ANY (CAST(CAST(:'pids' AS pg_catalog.text) AS pg_catalog.int4[]));
