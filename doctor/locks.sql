-- How many locked objects are in the lock table that all sessions share, and the
-- settings that its size comes from. Locks of the fast path are elsewhere, and so are
-- the predicate locks of serializable transactions.
SELECT CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM (
    SELECT (SELECT pg_catalog.count(*) FROM (
                SELECT DISTINCT l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid,
                    l.classid, l.objid, l.objsubid
                FROM pg_catalog.pg_locks AS l
                WHERE NOT l.fastpath AND l.mode OPERATOR(pg_catalog.<>) 'SIReadLock') AS d) AS used,
        CAST(pg_catalog.current_setting('max_locks_per_transaction') AS pg_catalog.int8) AS per_transaction,
        CAST(pg_catalog.current_setting('max_connections') AS pg_catalog.int8) AS connections,
        CAST(pg_catalog.current_setting('max_prepared_transactions') AS pg_catalog.int8) AS prepared
) AS x;
