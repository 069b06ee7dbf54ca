-- How the session reaches the server. Addresses are null on a Unix socket. The folder of
-- the socket is null if the role may not see it.
SELECT CAST(pg_catalog.row_to_json(x) AS pg_catalog.text)
FROM (
    SELECT pg_catalog.host(pg_catalog.inet_client_addr()) AS client,
        pg_catalog.host(pg_catalog.inet_server_addr()) AS server,
        pg_catalog.current_setting('port') AS port,
        (SELECT s.setting FROM pg_catalog.pg_settings AS s
            WHERE s.name OPERATOR(pg_catalog.=) 'unix_socket_directories') AS sockets,
        (SELECT l.version FROM pg_catalog.pg_stat_ssl AS l
            WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.ssl) AS tls
) AS x;
