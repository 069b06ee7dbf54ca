-- Return the names of relations and databases by their OIDs, which are arrays as
-- text, such as {1259,2619}. Run it in psql with -v relations={1259} -v
-- databases={1}.
SELECT 'relation' AS kind, CAST(ROW (c.oid, n.nspname, c.relkind, c.relname) AS pg_catalog.text) AS payload
FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) ANY (CAST(CAST(:'relations' AS pg_catalog.text) AS pg_catalog.oid[]))
UNION ALL
SELECT 'database', CAST(ROW (d.oid, d.datname) AS pg_catalog.text)
FROM pg_catalog.pg_database AS d
WHERE d.oid OPERATOR(pg_catalog.=) ANY (CAST(CAST(:'databases' AS pg_catalog.text) AS pg_catalog.oid[]));
