// Package connect resolves the connection settings and connects.
//
// It follows libpq's rules exactly, so that pglock connects where psql does:
// flags and connection strings (conninfo.go, uri.go), services (service.go),
// variables and defaults (settings.go), hosts (hosts.go), the password file
// (pgpass.go), TLS (tls.go), and the order in which hosts and modes are tried
// (target.go). pgx implements the protocol; it gets the configuration of a single try.
//
// A libpq setting that pglock does not support is refused if ignoring it would connect
// to another server or less safely. TestAsPsql compares with psql.
package connect
