-- The watcher's session begins: it must neither hang, nor be ended for being idle,
-- nor be taken for somebody to end. Settings that this major does not have are
-- left out.
-- $1: its application_name, $2: how long a statement of its may take
SELECT CAST(pg_catalog.count(pg_catalog.set_config(s.name, s.value, false)) AS pg_catalog.text)
FROM (VALUES
    ('search_path', 'pg_catalog, pg_temp'),
    ('application_name', CAST($1 AS pg_catalog.text)),
    ('statement_timeout', CAST($2 AS pg_catalog.text)),
    ('lock_timeout', CAST($2 AS pg_catalog.text)),
    ('idle_in_transaction_session_timeout', CAST($2 AS pg_catalog.text)),
    ('idle_session_timeout', '0'),
    ('transaction_timeout', '0'),
    ('default_transaction_isolation', 'read committed'),
    ('default_transaction_read_only', 'on'),
    ('plan_cache_mode', 'force_generic_plan'),
    -- A query that is no UTF-8 would make an error of all, where the database has
    -- no encoding.
    ('client_encoding', CASE
        WHEN pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END),
    ('jit', 'off')
) AS s (name, value)
WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL
