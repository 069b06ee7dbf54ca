// Package pgxlock lets pglock work through [github.com/jackc/pgx/v5].
//
// A Locker gets its sessions from [Pool], [Config] or [ConnString]; they are
// connections of its own, dialled with the same configuration, so that a lock
// never takes a connection from the application's work:
//
//	locker, err := pglock.New(pgxlock.Pool(pool))
//
// What locks in a transaction of the caller's takes it as [Tx], and what works
// on one connection takes it as [Conn].
package pgxlock
