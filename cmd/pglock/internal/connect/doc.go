// Package connect finds out whom to connect to, as whom and how, and connects.
//
// It follows libpq's rules to the letter, so that pglock connects where psql does:
// flags and connection strings (conninfo.go, uri.go), services (service.go),
// variables and defaults (settings.go), hosts (hosts.go), the password file
// (pgpass.go), TLS (tls.go), and which hosts and modes are tried in which order
// (target.go). pgx speaks the protocol; it gets the configuration of a single try.
//
// What libpq knows and pglock does not support is refused, never ignored where
// ignoring it would connect elsewhere or less safely. TestAsPsql compares with psql.
package connect
