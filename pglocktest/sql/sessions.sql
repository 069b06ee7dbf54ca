-- The sessions that hold a lock ($1 is true) or wait for it (false). For an advisory
-- lock, $2, $3 and $4 are its classid, objid and objsubid, and $5 is empty. For a table,
-- $5 is its name, quoted as in SQL, and $6 an array of the modes that count. $7 is an
-- array of pids to exclude. The result is their pids, separated by spaces, or 'no such
-- table'.
SELECT CASE
    WHEN $5::text <> '' AND pg_catalog.to_regclass($5::text) IS NULL THEN 'no such table'
    ELSE coalesce((
        SELECT pg_catalog.string_agg(DISTINCT l.pid::text, ' ')
        FROM pg_catalog.pg_locks l
        WHERE l.granted = $1::text::boolean
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
            AND l.pid <> ALL ($7::text::int[])
            AND CASE l.locktype
                WHEN 'advisory' THEN $5::text = '' AND l.classid = $2::text::oid AND l.objid = $3::text::oid
                    AND l.objsubid = $4::text::int
                WHEN 'relation' THEN $5::text <> '' AND l.relation = pg_catalog.to_regclass($5::text)
                    AND l.mode = ANY ($6::text::text[])
                ELSE false
            END
    ), '')
END
