-- Is the session there, and does it still have our token $1? The result is the backend's
-- PID, a colon, and 1 or 0.
SELECT pg_catalog.pg_backend_pid()::text || ':' ||
    coalesce(pg_catalog.current_setting('pglock.session', true) = $1::text, false)::int::text
