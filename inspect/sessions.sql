-- Return sessions by their PIDs, which are an array as text, such as {11,12}: those
-- that appeared between the parts of a snapshot. Run it in psql with -v pids={11,12}.
WITH
-- Within a transaction, pg_stat_activity does not change after the first read.
fresh AS MATERIALIZED (
    SELECT CAST(pg_catalog.pg_stat_clear_snapshot() AS pg_catalog.text) AS done
)
SELECT 'session' AS kind, x.payload
-- As in snapshot.sql, these replace columns that not every version has.
FROM (
        SELECT CAST(NULL AS pg_catalog.int4) AS leader_pid, -- before 13
            CAST(NULL AS pg_catalog.int8) AS query_id -- before 14
    ) AS absent
    CROSS JOIN LATERAL (
        SELECT CAST(ROW (a.pid, leader_pid, a.usename, a.datname, a.application_name, a.client_addr,
            a.backend_type, a.state, a.wait_event_type, a.wait_event, query_id,
            CAST(EXTRACT(epoch FROM a.backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
            CAST(EXTRACT(epoch FROM a.xact_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
            CAST(EXTRACT(epoch FROM a.query_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
            CAST(EXTRACT(epoch FROM a.state_change) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
            a.client_hostname, a.client_port, a.backend_xid, a.backend_xmin,
            pg_catalog.age(a.backend_xid), pg_catalog.age(a.backend_xmin),
            a.query) AS pg_catalog.text) AS payload
        FROM fresh AS f CROSS JOIN LATERAL (
            SELECT s.* FROM pg_catalog.pg_stat_activity AS s
            OFFSET CASE WHEN f.done IS NULL THEN 0 ELSE 0 END -- clear first, then read
        ) AS a
        WHERE a.pid OPERATOR(pg_catalog.=) ANY (CAST(CAST(:'pids' AS pg_catalog.text) AS pg_catalog.int4[]))
    ) AS x;
