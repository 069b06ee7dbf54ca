-- Notify those who listen that the leases with the names $1 were released.
SELECT CAST(pg_catalog.count(pg_catalog.pg_notify('pglock', n.name)) AS pg_catalog.text)
FROM (SELECT DISTINCT w.name FROM pg_catalog.unnest(CAST($1 AS pg_catalog._text)) AS w (name)) AS n
