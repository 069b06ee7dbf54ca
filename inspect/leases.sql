-- Return the leases that have an owner or may not be taken yet, each as JSON, with durations
-- and times in microseconds. names selects some of them, as a JSON array; an empty array
-- selects all. The row with slot -1 is held by the first request that waits for one of several
-- slots: it is no lease, and shows that the slots are wanted. Run it in psql with -v names=[].
SELECT 'lease' AS kind, CAST(pg_catalog.row_to_json(x) AS pg_catalog.text) AS payload
FROM (
    SELECT l.name, l.slot, l.token, l.note,
        COALESCE(l.owner, '') AS owner,
        COALESCE(s.app, '') AS program,
        COALESCE(s.host, '') AS host,
        COALESCE(s.pid, 0) AS process,
        CAST(EXTRACT(epoch FROM l.since) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) AS since,
        CAST(EXTRACT(epoch FROM v.now OPERATOR(pg_catalog.-) l.since) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8) AS duration,
        CASE WHEN s.until OPERATOR(pg_catalog.>) v.now
            THEN CAST(EXTRACT(epoch FROM s.until OPERATOR(pg_catalog.-) v.now) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)
            ELSE 0 END AS "left",
        CASE WHEN l.free_at OPERATOR(pg_catalog.=) 'infinity' THEN CAST('-1' AS pg_catalog.int8) -- cannot be subtracted before 17
            WHEN l.free_at OPERATOR(pg_catalog.>) v.now
            THEN CAST(EXTRACT(epoch FROM l.free_at OPERATOR(pg_catalog.-) v.now) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)
            ELSE 0 END AS due,
        l.wanted OPERATOR(pg_catalog.>) v.now OR EXISTS (
            SELECT FROM pglock.lease AS g JOIN pglock.session AS gs ON gs.id OPERATOR(pg_catalog.=) g.owner
            WHERE g.name OPERATOR(pg_catalog.=) l.name AND g.slot OPERATOR(pg_catalog.=) CAST('-1' AS pg_catalog.int4) AND gs.until OPERATOR(pg_catalog.>) v.now
        ) AS wanted
    FROM pglock.lease AS l
        LEFT JOIN pglock.session AS s ON s.id OPERATOR(pg_catalog.=) l.owner
        CROSS JOIN LATERAL (VALUES (pg_catalog.clock_timestamp())) AS v (now)
    WHERE l.slot OPERATOR(pg_catalog.>=) 0
        AND (l.owner IS NOT NULL OR l.free_at OPERATOR(pg_catalog.>) v.now)
        AND (CAST(:'names' AS pg_catalog.text) OPERATOR(pg_catalog.=) '[]'
            OR l.name OPERATOR(pg_catalog.=) ANY (ARRAY(
                SELECT m.name FROM pg_catalog.json_array_elements_text(CAST(CAST(:'names' AS pg_catalog.text) AS pg_catalog.json)) AS m (name))))
    ORDER BY l.name, l.slot
) AS x;
