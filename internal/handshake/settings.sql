-- The settings of a session that is pglock's own: regardless of the settings of the
-- server, the database, the role or PGOPTIONS, none of our statements may wait, fail or
-- change its meaning. This is the only list of them. A setting stays as it is if its value
-- here is '', or if this major version does not have it.
-- $1 is the session's token, or ''. $2 is statement_timeout, and also limits idle time in a
-- transaction. $3 is lock_timeout. $4 is plan_cache_mode. $5 is the application_name if
-- none is set, or in any case if $6 is true. If $7 is true, search_path is not changed. If
-- $8 is true, all settings are for the transaction. $9 to $12 are how soon the server
-- notices that the client is gone, and releases its locks: the milliseconds between checks
-- while a statement runs, the seconds of silence before the first probe, the seconds between
-- probes, of which three have no reply, and the milliseconds until sent data must be
-- acknowledged. $13 is default_transaction_read_only: off if statements write. What they wrote
-- must not be lost in a crash after they returned.
SELECT CAST(pg_catalog.count(pg_catalog.set_config(s.name, s.value, CAST($8 AS pg_catalog.bool))) AS pg_catalog.text)
FROM (VALUES
    ('pglock.session', CAST($1 AS pg_catalog.text)),
    -- the meaning of names and operators
    ('search_path', CASE WHEN CAST($7 AS pg_catalog.bool)
        THEN pg_catalog.current_setting('search_path') ELSE 'pg_catalog, pg_temp' END),
    -- limits that end a session or a statement
    ('statement_timeout', CAST($2 AS pg_catalog.text)),
    ('lock_timeout', CAST($3 AS pg_catalog.text)),
    ('idle_in_transaction_session_timeout', CAST($2 AS pg_catalog.text)),
    ('idle_session_timeout', '0'),
    ('transaction_timeout', '0'),
    ('exit_on_error', 'off'),
    -- waits and failures of statements
    ('default_transaction_isolation', 'read committed'),
    ('default_transaction_deferrable', 'off'),
    ('default_transaction_read_only', CAST($13 AS pg_catalog.text)),
    ('synchronous_commit', CASE
        WHEN CAST($13 AS pg_catalog.text) OPERATOR(pg_catalog.=) 'off'
            AND pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
        THEN 'on' ELSE '' END),
    -- formats of values
    ('standard_conforming_strings', 'on'),
    ('transform_null_equals', 'off'),
    ('array_nulls', 'on'),
    ('DateStyle', 'ISO, MDY'),
    ('TimeZone', 'UTC'),
    ('IntervalStyle', 'postgres'),
    ('bytea_output', 'hex'),
    ('extra_float_digits', '1'),
    -- in a database without an encoding, a query that is not UTF-8 would fail the whole
    -- result
    ('client_encoding', CASE
        WHEN pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END),
    -- features that make short statements slow
    ('jit', 'off'),
    ('force_parallel_mode', 'off'),
    ('debug_parallel_query', 'off'),
    ('plan_cache_mode', CAST($4 AS pg_catalog.text)),
    -- the loss of the client
    ('client_connection_check_interval', CAST($9 AS pg_catalog.text)),
    ('tcp_keepalives_idle', CAST($10 AS pg_catalog.text)),
    ('tcp_keepalives_interval', CAST($11 AS pg_catalog.text)),
    ('tcp_keepalives_count', CASE WHEN CAST($10 AS pg_catalog.text) OPERATOR(pg_catalog.<>) '' THEN '3' ELSE '' END),
    ('tcp_user_timeout', CAST($12 AS pg_catalog.text)),
    -- identification
    ('application_name', CASE
        WHEN NOT CAST($6 AS pg_catalog.bool) AND pg_catalog.current_setting('application_name') OPERATOR(pg_catalog.<>) ''
        THEN pg_catalog.current_setting('application_name') ELSE CAST($5 AS pg_catalog.text) END)
) AS s (name, value)
WHERE s.value OPERATOR(pg_catalog.<>) ''
    AND (s.name OPERATOR(pg_catalog.=) 'pglock.session' OR pg_catalog.current_setting(s.name, true) IS NOT NULL)
