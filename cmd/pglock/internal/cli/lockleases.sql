-- Lock the tables exclusively, so that no session begins, and fail with SQLSTATE 22012, a
-- division by zero, if one has not expired. It is the first part of a message that goes on
-- with dropleases.sql, and so of one transaction.
LOCK TABLE pglock.session, pglock.lease;
SELECT FROM pglock.session AS s
WHERE 1 OPERATOR(pg_catalog./) CASE
    WHEN s.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN 0 ELSE 1 END OPERATOR(pg_catalog.=) 0;
