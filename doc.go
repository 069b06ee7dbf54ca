// Package pglock takes locks in Postgres: advisory locks and table locks, for
// programs that must do a thing one at a time, on however many machines.
package pglock
