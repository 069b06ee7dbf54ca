-- The holders of leases, and how long their sessions last if they are not renewed: a JSON
-- array ordered by lease. The caller controls search_path, so every name and operator is
-- qualified with pg_catalog.
-- $1: the leases, a JSON array of names
SELECT CAST(COALESCE(pg_catalog.json_agg(h), '[]') AS pg_catalog.text)
FROM (
    SELECT
        k.number OPERATOR(pg_catalog.-) 1 AS key,
        s.pid,
        s.app AS application,
        s.host AS client,
        l.slot,
        l.token,
        l.note,
        l.since AS taken,
        pg_catalog.date_part('epoch', s.until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) AS "left",
        'Lease' AS mode,
        true AS granted
    FROM ROWS FROM (pg_catalog.json_array_elements_text(CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.json)))
        WITH ORDINALITY AS k (name, number)
    JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) k.name
    JOIN pglock.session AS s ON s.id OPERATOR(pg_catalog.=) l.owner
    WHERE s.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
    ORDER BY k.number, l.slot
) AS h
