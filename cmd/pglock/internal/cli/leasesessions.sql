-- The version of the tables of leases, and the sessions that have not expired, with how many
-- leases each holds: a JSON object. The search_path is still the server's, so every name and
-- operator is qualified with pg_catalog.
SELECT CAST(pg_catalog.json_build_object(
    'version', COALESCE((
        SELECT l.token FROM pglock.lease AS l
        WHERE l.name OPERATOR(pg_catalog.=) '#version' AND l.slot OPERATOR(pg_catalog.=) 0), 0),
    'sessions', COALESCE((
        SELECT pg_catalog.json_agg(x) FROM (
            SELECT s.app AS program, s.host, s.pid AS process,
                pg_catalog.date_part('epoch', s.until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) AS "left",
                (SELECT pg_catalog.count(*) FROM pglock.lease AS l WHERE l.owner OPERATOR(pg_catalog.=) s.id) AS leases
            FROM pglock.session AS s
            WHERE s.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
            ORDER BY s.app, s.host, s.pid, s.id
        ) AS x), '[]')
) AS pg_catalog.text)
