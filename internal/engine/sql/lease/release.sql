-- Release leases that the session $5 holds: the names $1, the slots $2, the tokens $3, and in
-- $4 whether it may be taken again at once. The result has a character for each, as it was
-- before: l if this session held it, f if it was free and had still this token, 0 otherwise;
-- then |, and for each that was released its number, with a + if somebody listens for that.
-- If one that was held was not released, another transaction has locked its row.
--
-- FOR NO KEY UPDATE: releasing does not wait for a fence. SKIP LOCKED: nor for anything else.
--
-- The owner is compared as a column of the join, not with $5. Postgres expects few leases of
-- one owner, and would compare each with all that are to be released.
WITH returned AS (
    SELECT r.name, r.slot, r.token, r.again, r.number, CAST($5 AS pg_catalog.text) AS owner
    FROM ROWS FROM (pg_catalog.unnest(CAST($1 AS pg_catalog._text)), pg_catalog.unnest(CAST($2 AS pg_catalog._int4)), pg_catalog.unnest(CAST($3 AS pg_catalog._int8)), pg_catalog.unnest(CAST($4 AS pg_catalog._bool))) WITH ORDINALITY AS r (name, slot, token, again, number)
), freed AS (
    UPDATE pglock.lease AS l
    SET owner = NULL,
        free_at = CASE WHEN f.again THEN '-infinity' ELSE l.free_at END
    FROM (
        SELECT l.name, l.slot, r.again, r.number
        FROM returned AS r
        JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) r.name AND l.slot OPERATOR(pg_catalog.=) r.slot
        WHERE l.token OPERATOR(pg_catalog.=) r.token AND l.owner OPERATOR(pg_catalog.=) r.owner
        ORDER BY l.name, l.slot
        FOR NO KEY UPDATE OF l SKIP LOCKED
    ) AS f
    WHERE l.name OPERATOR(pg_catalog.=) f.name AND l.slot OPERATOR(pg_catalog.=) f.slot
    RETURNING f.number, l.wanted
)
SELECT pg_catalog.string_agg(CASE
        WHEN l.token OPERATOR(pg_catalog.=) r.token AND l.owner IS NULL THEN 'f'
        WHEN l.token OPERATOR(pg_catalog.=) r.token AND l.owner OPERATOR(pg_catalog.=) CAST($5 AS pg_catalog.text) THEN 'l'
        ELSE '0' END, '' ORDER BY r.number)
    OPERATOR(pg_catalog.||) '|' OPERATOR(pg_catalog.||) COALESCE((
        SELECT pg_catalog.string_agg(' ' OPERATOR(pg_catalog.||) CAST(f.number AS pg_catalog.text) OPERATOR(pg_catalog.||)
            CASE WHEN f.wanted OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN '+' ELSE '' END, '')
        FROM freed AS f), '')
FROM returned AS r
LEFT JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) r.name AND l.slot OPERATOR(pg_catalog.=) r.slot
