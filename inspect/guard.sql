-- The timeouts of a session that is there to look at locks.
SELECT pg_catalog.set_config('statement_timeout', '30s', false), pg_catalog.set_config('lock_timeout', '2s', false)
