-- The size of each table and index as VACUUM and ANALYZE last saw it, and how often each
-- table was read and written, as one JSON text. It opens no table, so it takes no lock on
-- one.
SELECT CAST(pg_catalog.json_build_object(
  'now', pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()),
  'block', CAST(pg_catalog.current_setting('block_size') AS pg_catalog.int8),
  'tables', COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
      'table', (SELECT t.relname FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) i.indrelid
        WHERE i.indexrelid OPERATOR(pg_catalog.=) c.oid),
      'rows', c.reltuples, 'pages', c.relpages,
      'reads', COALESCE(s.seq_scan, 0) OPERATOR(pg_catalog.+) COALESCE(s.idx_scan, 0),
      'writes', COALESCE(s.n_tup_ins, 0) OPERATOR(pg_catalog.+) COALESCE(s.n_tup_upd, 0) OPERATOR(pg_catalog.+) COALESCE(s.n_tup_del, 0)))
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid OPERATOR(pg_catalog.=) c.oid
    WHERE c.oid OPERATOR(pg_catalog.>=) CAST(16384 AS pg_catalog.oid)
      AND c.relkind OPERATOR(pg_catalog.=) ANY (CAST('{r,p,m,i}' AS pg_catalog."char"[]))
      AND n.nspname OPERATOR(pg_catalog.<>) 'pg_toast'), '[]')
) AS pg_catalog.text);
