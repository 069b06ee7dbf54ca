-- Return which of some texts match a regular expression of Postgres. texts is a JSON
-- array. Run it in psql with -v texts='["a", "b"]' -v pattern=^a.
SELECT 'match' AS kind, CAST(t.number OPERATOR(pg_catalog.-) 1 AS pg_catalog.text) AS payload
FROM pg_catalog.json_array_elements_text(CAST(CAST(:'texts' AS pg_catalog.text) AS pg_catalog.json))
    WITH ORDINALITY AS t (text, number)
WHERE t.text OPERATOR(pg_catalog.~) CAST(:'pattern' AS pg_catalog.text);
