-- Check in the caller's transaction that the lease with the name $1 and the slot $2 has
-- still the token $3. FOR KEY SHARE conflicts with taking a lease, which locks its row FOR
-- UPDATE, and with nothing else. The caller controls search_path, so every name and operator
-- is qualified with pg_catalog.
SELECT CAST(pg_catalog.count(*) AS pg_catalog.text) FROM (
    SELECT FROM pglock.lease AS l
    WHERE l.name OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
        AND l.slot OPERATOR(pg_catalog.=) CAST(CAST($2 AS pg_catalog.text) AS pg_catalog.int4)
        AND l.token OPERATOR(pg_catalog.=) CAST(CAST($3 AS pg_catalog.text) AS pg_catalog.int8)
        AND l.owner IS NOT NULL
    FOR KEY SHARE
) AS held
