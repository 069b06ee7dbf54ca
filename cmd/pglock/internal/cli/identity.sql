-- Return which server this is and which database: the system identifier and the start of
-- the running server, the OID of the database and its name. A standby and a restored copy
-- have the system identifier of their origin, but did not start in the same microsecond.
SELECT pg_catalog.concat(c.system_identifier, '/',
        CAST(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8),
        ' ', d.oid, ' ', d.datname)
FROM pg_catalog.pg_control_system() AS c
    CROSS JOIN pg_catalog.pg_database AS d
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
