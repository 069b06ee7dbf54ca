-- Return a row if the tables of leases are in a schema. A query of missing tables would be
-- an error in the server's log. Run it in psql with -v schema=pglock.
SELECT 'tables' AS kind, CAST(pg_catalog.count(*) AS pg_catalog.text) AS payload
FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE CAST(n.nspname AS pg_catalog.text) OPERATOR(pg_catalog.=) CAST(:'schema' AS pg_catalog.text)
    AND CAST(c.relname AS pg_catalog.text) OPERATOR(pg_catalog.=) ANY (ARRAY['session', 'lease']);
