// Package compat tests that pglock works with other software: inside the transactions of
// popular Go ORMs, with their names of tables, and with the keys of Python and psql.
//
// The directories gorm, bun, ent and sqlx each have an example program.
package compat
