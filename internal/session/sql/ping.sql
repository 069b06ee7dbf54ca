-- Is anybody there? The answer is the backend's pid, a colon, and 1.
SELECT pg_catalog.pg_backend_pid()::text || ':1'
