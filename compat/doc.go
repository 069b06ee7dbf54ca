// Package compat shows, by tests that run, that pglock works inside the
// transactions of the ORMs that Go programs use, and names tables as they do.
package compat
