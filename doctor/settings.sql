-- The settings that matter for work with locks, as a new session of this role in this
-- database gets them: the value, and where it is set. Numbers are in the setting's
-- unit. A setting that this major version does not have is missing.
SELECT CAST(COALESCE(pg_catalog.json_agg(pg_catalog.row_to_json(x)), '[]') AS pg_catalog.text)
FROM (
    SELECT s.name, s.reset_val AS value, s.source,
        -- the place of the default that applies, if it is of a role or a database
        o.of_role, o.of_database
    FROM pg_catalog.pg_settings AS s
        LEFT JOIN LATERAL (
            SELECT d.setrole OPERATOR(pg_catalog.<>) 0 AS of_role, d.setdatabase OPERATOR(pg_catalog.<>) 0 AS of_database
            FROM pg_catalog.pg_db_role_setting AS d
                CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) AS c (text)
            WHERE (d.setrole OPERATOR(pg_catalog.=) 0 OR d.setrole OPERATOR(pg_catalog.=) (
                    SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER))
                AND (d.setdatabase OPERATOR(pg_catalog.=) 0 OR d.setdatabase OPERATOR(pg_catalog.=) (
                    SELECT b.oid FROM pg_catalog.pg_database AS b
                    WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
                AND pg_catalog.lower(pg_catalog.split_part(c.text, '=', 1)) OPERATOR(pg_catalog.=) pg_catalog.lower(s.name)
            -- the most specific one applies: of the role in the database, of the role, of
            -- the database, of all
            ORDER BY d.setrole OPERATOR(pg_catalog.=) 0, d.setdatabase OPERATOR(pg_catalog.=) 0
            LIMIT 1
        ) AS o ON true
    WHERE s.name OPERATOR(pg_catalog.=) ANY (ARRAY[
        'log_lock_waits', 'deadlock_timeout', 'track_activities', 'track_activity_query_size',
        'idle_in_transaction_session_timeout', 'idle_session_timeout', 'lock_timeout', 'statement_timeout',
        'transaction_timeout'])
    ORDER BY s.name
) AS x;
