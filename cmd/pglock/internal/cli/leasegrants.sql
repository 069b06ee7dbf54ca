-- Those of the roles $2 that may not use the tables of leases in the schema $1: a JSON
-- array. Postgres only warns if a role that is not the owner grants what it may not grant.
SELECT CAST(COALESCE(pg_catalog.json_agg(x.role), '[]') AS pg_catalog.text)
FROM (
    SELECT m.role
    FROM pg_catalog.json_array_elements_text(CAST($2 AS pg_catalog.json)) AS m (role)
    CROSS JOIN LATERAL (VALUES ('session'), ('lease')) AS t (name)
    CROSS JOIN LATERAL (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS v (privilege)
    WHERE NOT pg_catalog.has_schema_privilege(m.role, CAST($1 AS pg_catalog.text), 'USAGE')
        OR NOT pg_catalog.has_table_privilege(m.role, pg_catalog.format('%I.%I', CAST($1 AS pg_catalog.text), t.name), v.privilege)
    GROUP BY m.role
) AS x
