-- Does the session belong to this client alone? $1 is the PID of the backend that the
-- server sent when the session began. Behind a pooler it is another one. A session that
-- has a token was set up by a client before this one.
SELECT CAST(pg_catalog.pg_backend_pid() AS pg_catalog.text) OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
    AND COALESCE(pg_catalog.current_setting('pglock.session', true), '') OPERATOR(pg_catalog.=) ''
