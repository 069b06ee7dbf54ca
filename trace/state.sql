-- The relations of the database, and what tells what a statement does to them, as one
-- JSON text. It reads only catalogs and counters, and takes no lock on a table.
SELECT CAST(pg_catalog.json_build_object(
  'lock_timeout', pg_catalog.current_setting('lock_timeout'),
  'statement_timeout', pg_catalog.current_setting('statement_timeout'),
  'relations', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', CAST(CAST(c.oid AS pg_catalog.text) AS pg_catalog.int8),
      'schema', n.nspname, 'name', c.relname,
      'sql', CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(c.relname)
        ELSE pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(c.relname)) END,
      'kind', c.relkind, 'node', CAST(CAST(c.relfilenode AS pg_catalog.text) AS pg_catalog.int8),
      'space', CAST(CAST(c.reltablespace AS pg_catalog.text) AS pg_catalog.int8),
      'temporary', c.relpersistence OPERATOR(pg_catalog.=) 't',
      'partition', c.relispartition,
      'table', CAST(CAST(i.indrelid AS pg_catalog.text) AS pg_catalog.int8),
      'toast', CAST(CAST(c.reltoastrelid AS pg_catalog.text) AS pg_catalog.int8),
      'parent', (SELECT CAST(CAST(h.inhparent AS pg_catalog.text) AS pg_catalog.int8) FROM pg_catalog.pg_inherits AS h
        WHERE h.inhrelid OPERATOR(pg_catalog.=) c.oid AND h.inhseqno OPERATOR(pg_catalog.=) 1),
      'scans', pg_catalog.pg_stat_get_xact_numscans(c.oid),
      'columns', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
          'number', a.attnum, 'name', a.attname, 'sql', pg_catalog.quote_ident(a.attname), 'not_null', a.attnotnull,
          'type', pg_catalog.concat(pg_catalog.format_type(a.atttypid, a.atttypmod), (
            SELECT pg_catalog.concat(' COLLATE ', pg_catalog.quote_ident(s.nspname), '.', pg_catalog.quote_ident(l.collname))
            FROM pg_catalog.pg_type AS y, pg_catalog.pg_collation AS l, pg_catalog.pg_namespace AS s
            WHERE y.oid OPERATOR(pg_catalog.=) a.atttypid AND l.oid OPERATOR(pg_catalog.=) a.attcollation
              AND s.oid OPERATOR(pg_catalog.=) l.collnamespace AND l.oid OPERATOR(pg_catalog.<>) y.typcollation)),
          'default', a.atthasdef,
          'generated', a.attgenerated OPERATOR(pg_catalog.<>) '' OR a.attidentity OPERATOR(pg_catalog.<>) '') ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
          AND c.relkind OPERATOR(pg_catalog.=) ANY (CAST('{r,p}' AS pg_catalog."char"[])))
    )), '[]')
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
    WHERE c.oid OPERATOR(pg_catalog.>=) CAST(16384 AS pg_catalog.oid)),
  'constraints', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', CAST(CAST(k.oid AS pg_catalog.text) AS pg_catalog.int8),
      'name', k.conname, 'sql', pg_catalog.quote_ident(k.conname), 'type', k.contype, 'valid', k.convalidated,
      'table', CAST(CAST(k.conrelid AS pg_catalog.text) AS pg_catalog.int8),
      'references', CAST(CAST(k.confrelid AS pg_catalog.text) AS pg_catalog.int8),
      'parent', CAST(CAST(k.conparentid AS pg_catalog.text) AS pg_catalog.int8),
      'index', CAST(CAST(k.conindid AS pg_catalog.text) AS pg_catalog.int8),
      'columns', k.conkey, 'referenced', k.confkey
    )), '[]')
    FROM pg_catalog.pg_constraint AS k
    WHERE k.oid OPERATOR(pg_catalog.>=) CAST(16384 AS pg_catalog.oid)
      AND k.conrelid OPERATOR(pg_catalog.>=) CAST(16384 AS pg_catalog.oid))
) AS pg_catalog.text);
