-- Is anybody there, and is the session still marked with $1 as ours? The answer
-- is the backend's pid, a colon, and 1 or 0.
SELECT pg_catalog.pg_backend_pid()::text || ':' ||
    coalesce(pg_catalog.current_setting('pglock.session', true) = $1::text, false)::int::text
