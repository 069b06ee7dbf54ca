-- How soon the server notices that the client is gone, and releases its locks: $1 is the
-- milliseconds between checks while a statement runs, $2 the seconds of silence before the
-- first probe, $3 the seconds between probes, $4 the number of probes without a reply, and
-- $5 the milliseconds until sent data must be acknowledged. Not every system supports all
-- of these, so this may fail on a good session.
SELECT pg_catalog.count(pg_catalog.set_config(s.name, s.value, false))::text
FROM (VALUES
    ('client_connection_check_interval', $1::text),
    ('tcp_keepalives_idle', $2::text),
    ('tcp_keepalives_interval', $3::text),
    ('tcp_keepalives_count', $4::text),
    ('tcp_user_timeout', $5::text)
) AS s (name, value)
WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL
