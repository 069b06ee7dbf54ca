-- The settings of a session that is known to be pglock's own: whatever the server, the
-- database, the role or PGOPTIONS say, none of our statements may wait, fail or mean
-- something else because of it. This is the one list of them. Settings that this major
-- does not have are left out.
-- $1 is the session's mark, or ''. $2 is statement_timeout, $3 is lock_timeout; in a
-- transaction the session is never idle for longer than $2. $4 is plan_cache_mode.
-- $5 is the application_name if nobody gave one, or whatever others gave if $6 is true.
-- search_path stays as it is if $7 is true. If $8 is true, all of it is for the
-- transaction.
SELECT CAST(pg_catalog.count(pg_catalog.set_config(s.name, s.value, CAST($8 AS pg_catalog.bool))) AS pg_catalog.text)
FROM (VALUES
    ('pglock.session', CAST($1 AS pg_catalog.text)),
    -- what a name or an operator means
    ('search_path', CASE WHEN CAST($7 AS pg_catalog.bool)
        THEN pg_catalog.current_setting('search_path') ELSE 'pg_catalog, pg_temp' END),
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
    ('TimeZone', 'UTC'),
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
        WHEN NOT CAST($6 AS pg_catalog.bool) AND pg_catalog.current_setting('application_name') OPERATOR(pg_catalog.<>) ''
        THEN pg_catalog.current_setting('application_name') ELSE CAST($5 AS pg_catalog.text) END)
) AS s (name, value)
WHERE CASE WHEN s.name OPERATOR(pg_catalog.=) 'pglock.session' THEN s.value OPERATOR(pg_catalog.<>) ''
    ELSE pg_catalog.current_setting(s.name, true) IS NOT NULL END
