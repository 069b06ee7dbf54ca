-- Who holds these tables, or waits for them, in a mode that keeps another session
-- out: a JSON array, holders first. It has those below the tables, too, which are
-- locked with them: partitions and heirs, and what a view reads.
-- $1: the tables, a JSON array of names in SQL
-- $2: the modes, a JSON array of names as in pg_locks, the weakest first
-- $3: 'true' for ONLY the tables themselves
WITH RECURSIVE below (relation) AS (
    SELECT pg_catalog.to_regclass(name)::oid
    FROM pg_catalog.json_array_elements_text($1::text::json) AS name
    UNION
    SELECT next.relation
    FROM below
    CROSS JOIN LATERAL (
        SELECT i.inhrelid
        FROM pg_catalog.pg_inherits AS i
        WHERE i.inhparent = below.relation AND $3::text <> 'true'
        UNION ALL
        SELECT d.refobjid
        FROM pg_catalog.pg_class AS view
        JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = view.oid
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass
        WHERE view.oid = below.relation AND view.relkind = 'v'
    ) AS next (relation)
)
SELECT coalesce(pg_catalog.json_agg(h), '[]')::text
FROM (
    SELECT
        coalesce(l.pid, 0) AS pid,
        coalesce(a.usename, '') AS "user",
        coalesce(a.application_name, '') AS application,
        coalesce(a.client_hostname, pg_catalog.host(a.client_addr), '') AS client,
        coalesce(a.state, '') AS state,
        a.backend_start AS since,
        -- A session may hold several: the strongest is told.
        (pg_catalog.array_agg(l.mode ORDER BY m.strength DESC))[1] AS mode,
        l.granted
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.json_array_elements_text($2::text::json) WITH ORDINALITY AS m (mode, strength) ON m.mode = l.mode
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'relation'
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND l.relation IN (SELECT relation FROM below)
      AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
    GROUP BY l.pid, a.usename, a.application_name, a.client_hostname, a.client_addr, a.state, a.backend_start, l.granted
    ORDER BY l.granted DESC, a.backend_start, l.pid
    LIMIT 16
) AS h
