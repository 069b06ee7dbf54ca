-- Drop the tables and the function of leases.
DROP FUNCTION IF EXISTS pglock.fence(pg_catalog.text, pg_catalog.int8, pg_catalog.int4);
DROP TABLE IF EXISTS pglock.session, pglock.lease;
SELECT ''
