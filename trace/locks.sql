-- The locks of a session on relations of this database, and what it waits for, as one
-- JSON text. $1 is its PID.
SELECT CAST(pg_catalog.json_build_object(
  'locks', COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'type', l.locktype, 'mode', l.mode, 'granted', l.granted,
      'relation', CAST(CAST(l.relation AS pg_catalog.text) AS pg_catalog.int8)))
    FROM pg_catalog.pg_locks AS l
    WHERE l.pid OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.int4)
      AND (NOT l.granted OR (l.locktype OPERATOR(pg_catalog.=) 'relation'
        AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())))), '[]')
) AS pg_catalog.text);
