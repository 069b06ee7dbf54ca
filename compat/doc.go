// Package compat shows, by tests that run, that pglock works with what others have:
// inside the transactions of the ORMs that Go programs use, naming tables as they do,
// and with the keys of Python and psql.
//
// The folders gorm, bun, ent and sqlx each have a program to copy.
package compat
