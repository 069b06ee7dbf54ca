// Package examples tests that pglock works with other software: inside the transactions
// of popular Go ORMs, with their names of tables, and with the keys of Python and psql.
//
// The directories gorm, bun and sqlx each have an example program. The one for ent is in
// testdata/ent, because it does not compile before ent has generated its code.
package examples
