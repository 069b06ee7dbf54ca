-- Does the server have advisory locks, or only claim to? Some servers that speak the
-- protocol return true for every lock and unlock. For a random key $1: is it locked, is it
-- in pg_locks then, is it unlocked, and is it gone from pg_locks? Each step needs the one
-- before it, which forces their order. (A second unlock that returns false would prove as
-- much, but would leave a warning in the server's log each time.)
WITH
acquired AS MATERIALIZED (
    SELECT pg_catalog.pg_try_advisory_lock(CAST($1 AS pg_catalog.int8)) AS yes
),
checked AS MATERIALIZED (
    SELECT a.yes AS acquired, (
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks AS l
        WHERE a.yes AND l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
          AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.objsubid OPERATOR(pg_catalog.=) 1
          AND (CAST(l.classid AS pg_catalog.int8) OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) CAST(l.objid AS pg_catalog.int8)
              OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.int8)
    ) AS n
    FROM acquired AS a
),
released AS MATERIALIZED (
    SELECT c.acquired, c.n, CASE WHEN c.n IS NOT NULL THEN pg_catalog.pg_advisory_unlock(CAST($1 AS pg_catalog.int8)) END AS yes
    FROM checked AS c
)
SELECT CASE WHEN r.acquired AND r.n OPERATOR(pg_catalog.=) 1 AND r.yes AND (
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks AS l
        WHERE r.yes AND l.locktype OPERATOR(pg_catalog.=) 'advisory'
          AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.objsubid OPERATOR(pg_catalog.=) 1
          AND (CAST(l.classid AS pg_catalog.int8) OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) CAST(l.objid AS pg_catalog.int8)
              OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.int8)
    ) OPERATOR(pg_catalog.=) 0 THEN 'yes' ELSE 'no' END
FROM released AS r
