-- How many queries are cut at track_activity_query_size, of the sessions that the role
-- may see. The text is cut between characters, so up to three bytes may be missing. The
-- statements of pglock's own sessions are long, and tell nothing about the application.
SELECT CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM (
    SELECT v.size, pg_catalog.count(*) FILTER (
            WHERE pg_catalog.octet_length(a.query) OPERATOR(pg_catalog.>=) (v.size OPERATOR(pg_catalog.-) 4)) AS cut
    FROM (SELECT CAST(s.setting AS pg_catalog.int4) AS size
            FROM pg_catalog.pg_settings AS s
            WHERE s.name OPERATOR(pg_catalog.=) 'track_activity_query_size') AS v
        LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
            AND pg_catalog."left"(COALESCE(a.application_name, ''), 6) OPERATOR(pg_catalog.<>) 'pglock'
    GROUP BY v.size
) AS x;
