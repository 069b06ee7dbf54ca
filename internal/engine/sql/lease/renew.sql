-- Renew the session $1 for $2 milliseconds. The result is how many of its leases were
-- broken so far, or 'ended'. A session that has ended is never renewed: others may have
-- taken its leases.
WITH renewed AS (
    UPDATE pglock.session AS s
    SET until = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (CAST($2 AS pg_catalog.float8) OPERATOR(pg_catalog.*) CAST('1 ms' AS pg_catalog.interval))
    WHERE s.id OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
        AND s.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
    RETURNING s.broken
)
SELECT COALESCE((SELECT CAST(r.broken AS pg_catalog.text) FROM renewed AS r), 'ended')
