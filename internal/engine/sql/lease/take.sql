-- Take those of the leases that are free, for the session $5: the names $1, the slots $2,
-- the seconds $3 during which nobody takes it again, the notes $4. The result is 0 if the
-- session has ended, 1 otherwise; then why each lease could not be taken before: m and the
-- token if this session has it already, u if it has no row, e and the owner if the owner's
-- session has expired, h and the milliseconds until that may happen, d and the milliseconds
-- until it may be taken again, or b if it could not be taken at that moment; then |, and
-- the number and the token of each lease that was taken all the same. (Joining these with
-- the others would be slow: Postgres expects few rows, and chooses a nested loop.)
--
-- FOR UPDATE conflicts with the FOR KEY SHARE of a fence, so no lease is taken while a
-- transaction that has checked its token may still commit. Renewing and releasing conflict
-- with neither. SKIP LOCKED: taking never waits.
--
-- Whether a session has expired is not decided here, since its row may be renewed at this
-- moment, but by end.sql. "Ended" never reverts, so it is safe in an old snapshot. An owner
-- that is not visible has not ended: it may be newer than the snapshot.
WITH wanted AS (
    SELECT w.name, w.slot, w.every, w.note, w.number
    FROM ROWS FROM (pg_catalog.unnest(CAST($1 AS pg_catalog._text)), pg_catalog.unnest(CAST($2 AS pg_catalog._int4)), pg_catalog.unnest(CAST($3 AS pg_catalog._float8)), pg_catalog.unnest(CAST($4 AS pg_catalog._text))) WITH ORDINALITY AS w (name, slot, every, note, number)
), taken AS (
    UPDATE pglock.lease AS l
    SET owner = CAST($5 AS pg_catalog.text),
        since = pg_catalog.clock_timestamp(),
        note = f.note,
        -- The clock, because the row may be new after it was swept, or after a restore.
        token = GREATEST(l.token OPERATOR(pg_catalog.+) 1,
            CAST(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)),
        free_at = CASE WHEN f.every OPERATOR(pg_catalog.>) 0
            THEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (f.every OPERATOR(pg_catalog.*) CAST('1 s' AS pg_catalog.interval))
            ELSE '-infinity' END
    FROM (
        SELECT l.name, l.slot, w.every, w.note, w.number
        FROM wanted AS w
        JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) w.name AND l.slot OPERATOR(pg_catalog.=) w.slot
        LEFT JOIN pglock.session AS s ON s.id OPERATOR(pg_catalog.=) l.owner
        WHERE l.free_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
            AND (l.owner IS NULL OR s.until OPERATOR(pg_catalog.=) '-infinity')
            AND EXISTS (
                SELECT FROM pglock.session AS me
                WHERE me.id OPERATOR(pg_catalog.=) CAST($5 AS pg_catalog.text)
                    AND me.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())
        ORDER BY l.name, l.slot
        FOR UPDATE OF l SKIP LOCKED
    ) AS f
    WHERE l.name OPERATOR(pg_catalog.=) f.name AND l.slot OPERATOR(pg_catalog.=) f.slot
    RETURNING f.number, l.token
)
SELECT CASE WHEN EXISTS (
        SELECT FROM pglock.session AS me
        WHERE me.id OPERATOR(pg_catalog.=) CAST($5 AS pg_catalog.text)
            AND me.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())
    THEN '1' ELSE '0' END OPERATOR(pg_catalog.||) pg_catalog.string_agg(' ' OPERATOR(pg_catalog.||) CASE
        WHEN l.name IS NULL THEN 'u'
        WHEN l.owner OPERATOR(pg_catalog.=) CAST($5 AS pg_catalog.text) THEN 'm' OPERATOR(pg_catalog.||) CAST(l.token AS pg_catalog.text)
        WHEN l.owner IS NOT NULL AND s.id IS NULL THEN 'e' OPERATOR(pg_catalog.||) l.owner
        WHEN s.until OPERATOR(pg_catalog.=) '-infinity' OR l.owner IS NULL THEN CASE
            WHEN l.free_at OPERATOR(pg_catalog.=) 'infinity' THEN 'd' OPERATOR(pg_catalog.||) '9223372036854'
            WHEN l.free_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN 'd' OPERATOR(pg_catalog.||)
                CAST(CAST(pg_catalog.ceil(pg_catalog.date_part('epoch', l.free_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000) AS pg_catalog.int8) AS pg_catalog.text)
            ELSE 'b' END
        WHEN s.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN 'h' OPERATOR(pg_catalog.||)
            CAST(CAST(pg_catalog.ceil(pg_catalog.date_part('epoch', s.until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000) AS pg_catalog.int8) AS pg_catalog.text)
        ELSE 'e' OPERATOR(pg_catalog.||) l.owner END, '' ORDER BY w.number)
    OPERATOR(pg_catalog.||) ' |' OPERATOR(pg_catalog.||) COALESCE((
        SELECT pg_catalog.string_agg(' ' OPERATOR(pg_catalog.||) CAST(t.number AS pg_catalog.text)
            OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) CAST(t.token AS pg_catalog.text), '')
        FROM taken AS t), '')
FROM wanted AS w
LEFT JOIN pglock.lease AS l ON l.name OPERATOR(pg_catalog.=) w.name AND l.slot OPERATOR(pg_catalog.=) w.slot
LEFT JOIN pglock.session AS s ON s.id OPERATOR(pg_catalog.=) l.owner
