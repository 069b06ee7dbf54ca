-- Release leases that the session $5 holds: the names $1, the slots $2, the tokens $3, and in
-- $4 whether the time of Every that was to pass is over. The result has a character for each:
-- 1 if it was released, 2 if somebody listens for that, f if it is free and has still this
-- token, l if another transaction has locked its row, 0 if this session does not hold it.
--
-- FOR NO KEY UPDATE: releasing does not wait for a fence. SKIP LOCKED: nor for anything else.
WITH returned AS (
    SELECT r.name, r.slot, r.token, r.again, r.number
    FROM ROWS FROM (pg_catalog.unnest(CAST($1 AS pg_catalog._text)), pg_catalog.unnest(CAST($2 AS pg_catalog._int4)), pg_catalog.unnest(CAST($3 AS pg_catalog._int8)), pg_catalog.unnest(CAST($4 AS pg_catalog._bool))) WITH ORDINALITY AS r (name, slot, token, again, number)
), freed AS (
    UPDATE pglock.lease AS l
    SET owner = NULL,
        free_at = CASE WHEN f.again THEN '-infinity' ELSE l.free_at END
    FROM (
        SELECT l.name, l.slot, r.again
        FROM returned AS r
        JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) r.name AND l.slot OPERATOR(pg_catalog.=) r.slot
        WHERE l.token OPERATOR(pg_catalog.=) r.token AND l.owner OPERATOR(pg_catalog.=) CAST($5 AS pg_catalog.text)
        ORDER BY l.name, l.slot
        FOR NO KEY UPDATE OF l SKIP LOCKED
    ) AS f
    WHERE l.name OPERATOR(pg_catalog.=) f.name AND l.slot OPERATOR(pg_catalog.=) f.slot
    RETURNING l.name, l.slot, l.wanted
)
SELECT pg_catalog.string_agg(CASE
        WHEN f.wanted OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN '2'
        WHEN f.name IS NOT NULL THEN '1'
        WHEN l.token OPERATOR(pg_catalog.=) r.token AND l.owner IS NULL THEN 'f'
        WHEN l.token OPERATOR(pg_catalog.=) r.token AND l.owner OPERATOR(pg_catalog.=) CAST($5 AS pg_catalog.text) THEN 'l'
        ELSE '0' END, '' ORDER BY r.number)
FROM returned AS r
LEFT JOIN freed AS f ON f.name OPERATOR(pg_catalog.=) r.name AND f.slot OPERATOR(pg_catalog.=) r.slot
LEFT JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) r.name AND l.slot OPERATOR(pg_catalog.=) r.slot
