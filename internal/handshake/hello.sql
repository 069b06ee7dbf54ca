-- What must be known of a session before anything is changed on it, because it may belong
-- to a pooler. The search_path is still the server's, so every name and operator is
-- qualified with pg_catalog.
SELECT CAST(pg_catalog.json_build_object(
    'pid', pg_catalog.pg_backend_pid(),
    'start', (SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', a.backend_start), 'YYYY-MM-DD HH24:MI:SS.US')
              FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a),
    'token', pg_catalog.current_setting('pglock.session', true),
    'standby', pg_catalog.pg_is_in_recovery(),
    'version', pg_catalog.version(),
    'boot', pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()),
    'encoding', pg_catalog.current_setting('server_encoding'),
    'deferrable', pg_catalog.current_setting('default_transaction_deferrable')
) AS pg_catalog.text)
