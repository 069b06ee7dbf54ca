-- Ends the sessions that hold a lock. The parameters are as in sessions.sql. The result
-- is their pids, separated by spaces. MATERIALIZED, so that all sessions are found before
-- the first is signaled.
WITH holders AS MATERIALIZED (
    SELECT DISTINCT l.pid
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
)
SELECT coalesce(pg_catalog.string_agg(h.pid::text, ' ' ORDER BY h.pid), '')
FROM holders h
WHERE pg_catalog.pg_terminate_backend(h.pid)
