package pglock

import "context"

// This file is the seam between pglock and a database driver: all that pglock
// asks of one. Package pgxlock has it for pgx, package sqllock for database/sql
// and what is built on it; pglocktest proves an adapter of your own.

// A Querier runs queries: a connection, a transaction, or a pool. It is all that
// package inspect asks for.
type Querier interface {
	// Query runs one statement. The caller closes the Rows.
	Query(ctx context.Context, sql string, args ...any) (Rows, error)
}

// A Conn is one connection, or one transaction on it, that belongs to the
// caller: what [LockTx] and its kin work in. It is the same session from one
// call to the next; a pool is no Conn.
//
// Behind a pooler it is the same session for the length of a transaction only. What
// would set something for the session finds that out first if the Conn also has the
// methods AskSimple and PID of a [Session], as those of pgxlock and sqllock have; they
// are called outside of transactions only. Without them, or if PID returns 0, the session
// is taken for the caller's own. A Conn may also have the method
//
//	InTransaction() (open, known bool)
//
// which reports whether a transaction is open, if the driver knows; it saves the asking.
type Conn interface {
	Querier

	// Exec runs one statement and forgets its rows. Without args it may be several
	// statements, with semicolons between them, that are sent together.
	Exec(ctx context.Context, sql string, args ...any) error
}

// Rows are the rows of a query, as *sql.Rows has them.
type Rows interface {
	// Next goes to the next row, the first one at first. It reports false after
	// the last row and after an error, which Err tells.
	Next() bool

	// Scan copies the columns of this row into what dest points to.
	Scan(dest ...any) error

	// Err is the error that ended the rows, if one did.
	Err() error

	// Close ends the query early. It may be called more than once.
	Close() error
}

// A Source opens the sessions that a [Locker] owns. It must be safe for use by
// several goroutines.
type Source interface {
	// Open opens a new session that nobody else uses. ctx covers the opening
	// alone; the session lives on until its Close.
	Open(ctx context.Context) (Session, error)
}

// A Session is one Postgres session in the hands of a [Locker], which calls one
// method at a time, except for Close.
type Session interface {
	Conn

	// Ask runs one statement with text parameters and returns the single text
	// value of the single row that it answers with. The same few statements
	// come again and again, so an adapter does well to prepare them. After an
	// error that Postgres sent (one with an SQLState method), the session must
	// be usable as before, unless Postgres ended it; after any other error it
	// is never used again. ctx may be without a deadline: then Close is what
	// ends a statement that hangs.
	Ask(ctx context.Context, sql string, args ...string) (string, error)

	// AskSimple sends sql, one or more statements without parameters, as one message
	// of the simple query protocol, and returns the single text value of the single
	// row that they answer with. It leaves nothing on the session that sql does not
	// leave itself, in particular no prepared statement: it is how a session is asked
	// who it is before it is known whether it is shared with others. Errors and ctx
	// are as with Ask.
	AskSimple(ctx context.Context, sql string) (string, error)

	// Watch blocks until the session is lost, and returns why; or until ctx
	// ends, and then returns nil and leaves the session as it was. It runs no
	// statement: it listens. A driver that cannot listen returns an error that
	// is errors.ErrUnsupported, and the Locker asks now and then instead.
	Watch(ctx context.Context) error

	// PID is the number of the backend process as the server told it when the
	// session began (BackendKeyData in the protocol), or 0 where the driver
	// does not tell. A pooler in between is found out by it.
	PID() uint32

	// Close ends the session for good, so that Postgres frees its locks: it is
	// never given back to a pool. It may be called at any time, more than once,
	// and while Ask or Watch runs in another goroutine, which then returns an
	// error soon. It does not wait for the network for longer than a moment.
	Close() error
}
