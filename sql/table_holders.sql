-- The sessions that hold these tables, or wait for them, in a mode that conflicts with
-- the request: a JSON array, holders first. It includes the relations that are locked
-- with them: partitions, inheritance children, and the tables a view reads. The caller
-- controls search_path: it finds the tables, and every other name and operator is
-- qualified with pg_catalog.
-- $1: the tables, a JSON array of names in SQL
-- $2: the modes, a JSON array of names as in pg_locks, the weakest first
-- $3: 'true' for ONLY the tables themselves
WITH RECURSIVE below (relation) AS (
    SELECT CAST(pg_catalog.to_regclass(t.name) AS pg_catalog.oid)
    FROM pg_catalog.json_array_elements_text(CAST(CAST($1 AS pg_catalog.text) AS pg_catalog.json)) AS t (name)
    UNION
    SELECT next.relation
    FROM below
    CROSS JOIN LATERAL (
        SELECT i.inhrelid
        FROM pg_catalog.pg_inherits AS i
        WHERE i.inhparent OPERATOR(pg_catalog.=) below.relation
            AND CAST($3 AS pg_catalog.text) OPERATOR(pg_catalog.<>) 'true'
        UNION ALL
        SELECT d.refobjid
        FROM pg_catalog.pg_class AS v
        JOIN pg_catalog.pg_rewrite AS r ON r.ev_class OPERATOR(pg_catalog.=) v.oid
        JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) r.oid
            AND d.classid OPERATOR(pg_catalog.=) CAST('pg_catalog.pg_rewrite' AS pg_catalog.regclass)
            AND d.refclassid OPERATOR(pg_catalog.=) CAST('pg_catalog.pg_class' AS pg_catalog.regclass)
        WHERE v.oid OPERATOR(pg_catalog.=) below.relation AND v.relkind OPERATOR(pg_catalog.=) 'v'
    ) AS next (relation)
)
SELECT CAST(COALESCE(pg_catalog.json_agg(h), '[]') AS pg_catalog.text)
FROM (
    SELECT
        COALESCE(l.pid, 0) AS pid,
        COALESCE(a.usename, '') AS "user",
        COALESCE(a.application_name, '') AS application,
        COALESCE(a.client_hostname, pg_catalog.host(a.client_addr), '') AS client,
        COALESCE(a.state, '') AS state,
        a.backend_start AS since,
        -- A session may hold several modes: report the strongest.
        (pg_catalog.array_agg(l.mode ORDER BY m.strength DESC))[1] AS mode,
        l.granted
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.json_array_elements_text(CAST(CAST($2 AS pg_catalog.text) AS pg_catalog.json))
        WITH ORDINALITY AS m (mode, strength) ON m.mode OPERATOR(pg_catalog.=) l.mode
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    WHERE l.locktype OPERATOR(pg_catalog.=) 'relation'
      AND l.database OPERATOR(pg_catalog.=) (
          SELECT d.oid FROM pg_catalog.pg_database AS d
          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
      AND l.relation OPERATOR(pg_catalog.=) ANY (SELECT below.relation FROM below)
      -- A prepared transaction has no pid.
      AND (l.pid IS NULL OR l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())
    GROUP BY l.pid, a.usename, a.application_name, a.client_hostname, a.client_addr, a.state, a.backend_start, l.granted
    ORDER BY l.granted DESC, a.backend_start, l.pid
    LIMIT 16
) AS h
