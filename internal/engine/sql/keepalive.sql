-- How soon the server notices that the client is gone, and frees its locks:
-- $1 milliseconds between looks while a statement runs, $2 seconds of silence
-- until the first probe, $3 seconds between probes, $4 probes without an answer,
-- $5 milliseconds until sent data must be acknowledged. Not every system has all
-- of these, so that this may fail and the session is good all the same.
SELECT pg_catalog.count(pg_catalog.set_config(s.name, s.value, false))::text
FROM (VALUES
    ('client_connection_check_interval', $1::text),
    ('tcp_keepalives_idle', $2::text),
    ('tcp_keepalives_interval', $3::text),
    ('tcp_keepalives_count', $4::text),
    ('tcp_user_timeout', $5::text)
) AS s (name, value)
WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL
