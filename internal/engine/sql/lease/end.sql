-- End those of the sessions $1 that have expired, or that are gone. That never reverts.
-- Whether a session has expired is checked while its row is locked, so a renewal at the same
-- moment either comes first, or finds it ended. A session may be listed more than once.
WITH ended AS (
    INSERT INTO pglock.session AS s (id, until)
    SELECT DISTINCT e.id, CAST('-infinity' AS pg_catalog.timestamptz) FROM pg_catalog.unnest(CAST($1 AS pg_catalog._text)) AS e (id) ORDER BY e.id
    ON CONFLICT (id) DO UPDATE SET until = '-infinity'
    WHERE s.until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() AND s.until OPERATOR(pg_catalog.>) '-infinity'
    RETURNING s.id
)
SELECT CAST(pg_catalog.count(*) AS pg_catalog.text) FROM ended
