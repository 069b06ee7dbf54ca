-- Remove the session $1. If it still owns leases, others may take them.
WITH closed AS (
    DELETE FROM pglock.session AS s WHERE s.id OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text) RETURNING s.id
)
SELECT CAST(pg_catalog.count(*) AS pg_catalog.text) FROM closed
