-- The settings of a session that is known to be pglock's own: whatever the server, the
-- database, the role or PGOPTIONS say, none of our statements may wait, fail or mean
-- something else because of it. This is the one list of them. Settings that this major
-- does not have are left out.
-- $1 is the session's mark. $2 is statement_timeout, $3 is lock_timeout; in a
-- transaction the session is never idle for longer than $2.
-- $4 is plan_cache_mode. $5 is the application_name if nobody gave one.
SELECT CAST(pg_catalog.count(pg_catalog.set_config(s.name, s.value, false)) AS pg_catalog.text)
FROM (VALUES
    ('pglock.session', CAST($1 AS pg_catalog.text)),
    -- what a name or an operator means
    ('search_path', 'pg_catalog, pg_temp'),
    -- what ends a session or a statement
    ('statement_timeout', CAST($2 AS pg_catalog.text)),
    ('lock_timeout', CAST($3 AS pg_catalog.text)),
    ('idle_in_transaction_session_timeout', CAST($2 AS pg_catalog.text)),
    ('idle_session_timeout', '0'),
    ('transaction_timeout', '0'),
    ('exit_on_error', 'off'),
    -- what a statement waits for, or fails with
    ('default_transaction_isolation', 'read committed'),
    ('default_transaction_deferrable', 'off'),
    -- how values are written and read
    ('standard_conforming_strings', 'on'),
    ('transform_null_equals', 'off'),
    ('array_nulls', 'on'),
    ('DateStyle', 'ISO, MDY'),
    ('IntervalStyle', 'postgres'),
    ('bytea_output', 'hex'),
    ('extra_float_digits', '1'),
    -- a query that is not UTF-8 would fail a whole answer, where the database has no
    -- encoding
    ('client_encoding', CASE
        WHEN pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END),
    -- what makes a short statement slow
    ('jit', 'off'),
    ('force_parallel_mode', 'off'),
    ('debug_parallel_query', 'off'),
    ('plan_cache_mode', CAST($4 AS pg_catalog.text)),
    -- who we are
    ('application_name', CASE
        WHEN pg_catalog.current_setting('application_name') OPERATOR(pg_catalog.<>) ''
        THEN pg_catalog.current_setting('application_name') ELSE CAST($5 AS pg_catalog.text) END)
) AS s (name, value)
WHERE s.name OPERATOR(pg_catalog.=) 'pglock.session' OR pg_catalog.current_setting(s.name, true) IS NOT NULL
