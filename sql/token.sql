-- The backend's PID, a colon, and the ID of the transaction, which is new if the statement is
-- one of its own: 64 bits, and greater than all before it. The caller controls search_path, so
-- every name and operator is qualified with pg_catalog.
SELECT CAST(pg_catalog.pg_backend_pid() AS pg_catalog.text) OPERATOR(pg_catalog.||) ':'
    OPERATOR(pg_catalog.||) CAST(pg_catalog.txid_current() AS pg_catalog.text)
