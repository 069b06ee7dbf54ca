-- Ask for a notification when the leases with the names $1 and the slots $2 are released, for
-- ten seconds, unless somebody else has asked for that.
WITH asked AS (
    UPDATE pglock.lease AS l
    SET wanted = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) CAST('10 s' AS pg_catalog.interval)
    FROM (
        SELECT l.name, l.slot
        FROM ROWS FROM (pg_catalog.unnest(CAST($1 AS pg_catalog._text)), pg_catalog.unnest(CAST($2 AS pg_catalog._int4))) AS w (name, slot)
        JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) w.name AND l.slot OPERATOR(pg_catalog.=) w.slot
        WHERE l.wanted OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) CAST('6 s' AS pg_catalog.interval))
        ORDER BY l.name, l.slot
        FOR NO KEY UPDATE OF l SKIP LOCKED
    ) AS f
    WHERE l.name OPERATOR(pg_catalog.=) f.name AND l.slot OPERATOR(pg_catalog.=) f.slot
    RETURNING l.name
)
SELECT CAST(pg_catalog.count(*) AS pg_catalog.text) FROM asked
