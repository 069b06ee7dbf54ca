// Package connect turns the command's connection flags into a configuration for
// pgx, in libpq's ways: -h, -p, -U and -d, where -d takes a database, a URI or a
// key=value string; then a service, the PG* variables, and libpq's defaults.
//
// pgx does most of it. This package adds what psql does with flags, and what
// libpq knows and pgx does not: it is obeyed, or dropped where that does no harm,
// or refused, but never ignored where ignoring it would connect elsewhere or
// less safely.
package connect
