-- Remove up to 1,000 leases that were free for a week, and sessions that expired a day ago
-- and hold nothing. A token survives that: the next one is from the clock.
WITH swept AS (
    DELETE FROM pglock.lease AS l
    USING (
        SELECT o.name, o.slot FROM pglock.lease AS o
        WHERE o.owner IS NULL
            AND o.since OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) CAST('7 days' AS pg_catalog.interval))
            AND o.free_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) CAST('7 days' AS pg_catalog.interval))
        ORDER BY o.name, o.slot
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    ) AS f
    WHERE l.name OPERATOR(pg_catalog.=) f.name AND l.slot OPERATOR(pg_catalog.=) f.slot
    RETURNING l.name
), closed AS (
    DELETE FROM pglock.session AS s
    USING (
        SELECT o.id FROM pglock.session AS o
        WHERE o.until OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) CAST('1 day' AS pg_catalog.interval))
            AND o.since OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) CAST('1 day' AS pg_catalog.interval))
            AND NOT EXISTS (SELECT FROM pglock.lease AS l WHERE l.owner OPERATOR(pg_catalog.=) o.id)
        ORDER BY o.id
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    ) AS f
    WHERE s.id OPERATOR(pg_catalog.=) f.id
    RETURNING s.id
)
SELECT CAST((SELECT pg_catalog.count(*) FROM swept) OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM closed) AS pg_catalog.text)
