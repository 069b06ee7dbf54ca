-- Create the rows of the leases with the names $1 and the slots $2. That is a statement of
-- its own, because a refused INSERT costs a transaction ID.
WITH seeded AS (
    INSERT INTO pglock.lease (name, slot, token)
    SELECT w.name, w.slot, 0
    FROM ROWS FROM (pg_catalog.unnest(CAST($1 AS pg_catalog._text)), pg_catalog.unnest(CAST($2 AS pg_catalog._int4))) AS w (name, slot)
    ORDER BY w.name COLLATE pg_catalog."C", w.slot
    ON CONFLICT DO NOTHING
    RETURNING name
)
SELECT CAST(pg_catalog.count(*) AS pg_catalog.text) FROM seeded
