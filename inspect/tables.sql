-- Return the OID of a table by its name, as search_path finds it, and the OIDs of its
-- partitions and inheritance children. Returns no row if there is no such table. Does
-- not lock it. Run it in psql with -v table=public.orders.
WITH RECURSIVE family (oid) AS (
    SELECT CAST(pg_catalog.to_regclass(CAST(:'table' AS pg_catalog.text)) AS pg_catalog.oid)
    UNION
    SELECT i.inhrelid
    FROM family AS f JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) f.oid
)
SELECT 'table' AS kind, CAST(f.oid AS pg_catalog.text) AS payload
FROM family AS f
WHERE f.oid IS NOT NULL;
