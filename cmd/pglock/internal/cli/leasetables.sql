-- What the catalogs report about the tables of leases in the schema $1: a JSON object. Every
-- role can read that, whether the tables exist or not. The search_path is still the
-- server's, so every name and operator is qualified with pg_catalog.
SELECT CAST(pg_catalog.json_build_object(
    'standby', pg_catalog.pg_is_in_recovery(),
    'role', CURRENT_USER,
    'database', pg_catalog.current_database(),
    'database_owner', (
        SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database AS d
        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
    'schema_owner', (
        SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)),
    -- What depends on the schema is in it.
    'schema_empty', NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) d.refobjid
        WHERE n.nspname OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
            AND d.refclassid OPERATOR(pg_catalog.=) CAST('pg_catalog.pg_namespace' AS pg_catalog.regclass)
            AND d.classid OPERATOR(pg_catalog.<>) CAST('pg_catalog.pg_default_acl' AS pg_catalog.regclass)),
    'relations', COALESCE((
        SELECT pg_catalog.json_object_agg(c.relname, pg_catalog.json_build_object(
            'owner', pg_catalog.pg_get_userbyid(c.relowner),
            'columns', (
                SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)))
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
            AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY['session', 'lease'])), '{}'),
    'fence', EXISTS (
        SELECT FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
            AND f.proname OPERATOR(pg_catalog.=) 'fence'
            AND pg_catalog.oidvectortypes(f.proargtypes) OPERATOR(pg_catalog.=) 'text, bigint, integer')
) AS pg_catalog.text)
