-- Break the lease with the name $1 and the slot $2, if the session $3 still owns it with the
-- token $4: free it with a new token. Those who listen for its release are notified, and so
-- is its owner when it renews its session. The result is the new token and the milliseconds
-- until the owner's session expires if it is not renewed, or '' if the lease has another
-- owner by now.
--
-- FOR UPDATE waits for transactions that have checked the token (see pglock.Fence). A
-- renewal at the same moment is not held up for longer than this statement takes.
WITH target AS (
    SELECT l.name, l.slot, l.owner, l.wanted FROM pglock.lease AS l
    WHERE l.name OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
        AND l.slot OPERATOR(pg_catalog.=) CAST($2 AS pg_catalog.int4)
        AND l.owner OPERATOR(pg_catalog.=) CAST($3 AS pg_catalog.text)
        AND l.token OPERATOR(pg_catalog.=) CAST($4 AS pg_catalog.int8)
    FOR UPDATE
), freed AS (
    UPDATE pglock.lease AS l SET owner = NULL, token = l.token OPERATOR(pg_catalog.+) 1
    FROM target AS t
    WHERE l.name OPERATOR(pg_catalog.=) t.name AND l.slot OPERATOR(pg_catalog.=) t.slot
    RETURNING l.token
), counted AS (
    UPDATE pglock.session AS s SET broken = s.broken OPERATOR(pg_catalog.+) 1
    FROM target AS t
    WHERE s.id OPERATOR(pg_catalog.=) t.owner
    RETURNING s.until
)
SELECT COALESCE(pg_catalog.max(pg_catalog.concat(f.token, ' ',
    CASE WHEN s.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
        THEN pg_catalog.ceil(EXTRACT(epoch FROM s.until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000)
        ELSE 0 END)), '')
FROM freed AS f
LEFT JOIN counted AS s ON true
CROSS JOIN (
    SELECT pg_catalog.count(pg_catalog.pg_notify('pglock', t.name)) FROM target AS t
    WHERE t.wanted OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
) AS u (number)
WHERE u.number OPERATOR(pg_catalog.>=) 0
