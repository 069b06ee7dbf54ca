-- Ends the sessions in this database whose application_name is $1. The result is their
-- pids, separated by spaces. MATERIALIZED, so that all sessions are found before the
-- first is signaled.
WITH sessions AS MATERIALIZED (
    SELECT a.pid
    FROM pg_catalog.pg_stat_activity a
    WHERE a.application_name = $1::text AND a.datname = pg_catalog.current_database()
        AND a.pid <> pg_catalog.pg_backend_pid()
)
SELECT coalesce(pg_catalog.string_agg(s.pid::text, ' ' ORDER BY s.pid), '')
FROM sessions s
WHERE pg_catalog.pg_terminate_backend(s.pid)
