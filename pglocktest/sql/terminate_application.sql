-- Ends the sessions in this database whose application_name is $1. The answer is
-- their pids with spaces between them. MATERIALIZED, so that nobody is signalled
-- before it is known who is meant.
WITH sessions AS MATERIALIZED (
    SELECT a.pid
    FROM pg_catalog.pg_stat_activity a
    WHERE a.application_name = $1::text AND a.datname = pg_catalog.current_database()
        AND a.pid <> pg_catalog.pg_backend_pid()
)
SELECT coalesce(pg_catalog.string_agg(s.pid::text, ' ' ORDER BY s.pid), '')
FROM sessions s
WHERE pg_catalog.pg_terminate_backend(s.pid)
