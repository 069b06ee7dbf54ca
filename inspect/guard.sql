-- The settings of a session that is there to look at locks: its timeouts; and that
-- text comes as UTF-8, but from a database without an encoding as it is, since one
-- query that is no UTF-8 would make an error of all.
SELECT pg_catalog.set_config('statement_timeout', '30s', false), pg_catalog.set_config('lock_timeout', '2s', false),
    pg_catalog.set_config('client_encoding', CASE
        WHEN pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false)
