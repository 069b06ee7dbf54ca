-- The leases that the session $1 holds: a JSON array of [name, slot, token].
SELECT CAST(COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(l.name, l.slot, l.token)), '[]') AS pg_catalog.text)
FROM pglock.lease AS l
WHERE l.owner OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)
