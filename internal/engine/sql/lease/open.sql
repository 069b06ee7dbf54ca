-- Open the session $1 for $2 milliseconds, for the program $3 on the machine $4 in process
-- $5. The result is the version of the tables.
WITH opened AS (
    INSERT INTO pglock.session (id, until, app, host, pid)
    VALUES (
        CAST($1 AS pg_catalog.text),
        pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (CAST($2 AS pg_catalog.float8) OPERATOR(pg_catalog.*) CAST('1 ms' AS pg_catalog.interval)),
        CAST($3 AS pg_catalog.text), CAST($4 AS pg_catalog.text), CAST($5 AS pg_catalog.int4))
    RETURNING id
)
SELECT CAST(COALESCE((
    SELECT l.token FROM pglock.lease AS l
    WHERE l.name OPERATOR(pg_catalog.=) '#version' AND l.slot OPERATOR(pg_catalog.=) 0
), 0) AS pg_catalog.text)
FROM opened
