-- A session begins: what its locks must not depend on is set, and what must be
-- known of it is told. The server's, the role's and the database's own settings
-- must neither end a holder nor hide the functions that are called later; while
-- search_path is still theirs, every name and operator is pg_catalog's own.
-- Settings that this major does not have are left out.
SELECT CAST(pg_catalog.json_build_object(
    'pid', pg_catalog.pg_backend_pid(),
    'start', (SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', a.backend_start), 'YYYY-MM-DD HH24:MI:SS.US')
              FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a),
    'mark', pg_catalog.current_setting('pglock.session', true),
    'standby', pg_catalog.pg_is_in_recovery(),
    'settings', (SELECT pg_catalog.count(pg_catalog.set_config(s.name, s.value, false))
                 FROM (VALUES
                     ('pglock.session', CAST($1 AS pg_catalog.text)),
                     ('search_path', 'pg_catalog'),
                     ('statement_timeout', '0'),
                     ('lock_timeout', '0'),
                     ('idle_in_transaction_session_timeout', '0'),
                     ('idle_session_timeout', '0'),
                     ('transaction_timeout', '0'),
                     ('default_transaction_isolation', 'read committed'),
                     ('default_transaction_deferrable', 'off'),
                     ('jit', 'off'),
                     ('application_name', CASE
                         WHEN pg_catalog.current_setting('application_name') OPERATOR(pg_catalog.<>) ''
                         THEN pg_catalog.current_setting('application_name') ELSE 'pglock' END)
                 ) AS s (name, value)
                 WHERE s.name OPERATOR(pg_catalog.=) 'pglock.session' OR pg_catalog.current_setting(s.name, true) IS NOT NULL)
) AS pg_catalog.text)
