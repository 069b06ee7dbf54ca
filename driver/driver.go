// Package driver defines what pglock needs from a database driver. Package pgxlock
// implements it for pgx, and package sqllock for database/sql and the libraries built on
// it; package pglocktest tests other adapters. Programs that use one of these adapters
// need only the names of types from here.
package driver

import (
	"context"
	"io"
)

// A Querier runs queries: a connection, a transaction, or a pool. Package inspect needs
// nothing more.
type Querier interface {
	// Query runs one statement. The caller closes the Rows.
	Query(ctx context.Context, sql string, args ...any) (Rows, error)
}

// A Conn is one of the caller's connections, or a transaction on one. pglock.LockTx
// and similar functions work in it. All its calls must reach the same session, so a pool does
// not qualify.
//
// Behind a connection pooler, only the calls of one transaction reach the same session.
// Functions that change a session setting check for a pooler first. The check needs the
// methods QueryTextSimple and PID of [Session], which the Conns of pgxlock and sqllock have; it
// calls them only outside transactions. If the Conn lacks them, or PID returns 0, pglock
// assumes that there is no pooler. A Conn may also be a [TransactionReporter], which saves
// queries.
type Conn interface {
	Querier

	// Exec runs one statement and discards its rows. Without args, sql may contain
	// several statements separated by semicolons, which are sent as one message.
	Exec(ctx context.Context, sql string, args ...any) error
}

// A TransactionReporter is a [Conn] whose driver may know, without a query, whether a
// transaction is open.
type TransactionReporter interface {
	// InTransaction reports whether a transaction, aborted or not, is open. known is false
	// if the driver does not know.
	InTransaction() (open, known bool)
}

// Rows iterates over the result of a query, like *sql.Rows.
type Rows interface {
	// Next advances to the next row; the first call advances to the first row. It returns
	// false after the last row or an error, which Err returns.
	Next() bool

	// Scan copies the columns of the current row into the values pointed at by dest.
	Scan(dest ...any) error

	// Err returns the error that ended the iteration, if any.
	Err() error

	// Close ends the query early. It may be called more than once.
	Close() error
}

// A Source opens the sessions of a pglock.Locker. It must be safe for concurrent use.
type Source interface {
	// Open opens a new session for the caller's exclusive use. ctx covers only the
	// opening; the session stays open until its Close.
	Open(ctx context.Context) (Session, error)
}

// A Session is one Postgres session owned by a pglock.Locker. The Locker calls one method at a
// time, except for Close.
type Session interface {
	Conn

	// QueryText runs one statement with text parameters and returns its result, a single row
	// with a single text value. The same few statements are run again and again, so an
	// adapter should prepare them, if possible without a round trip of its own. After an
	// error sent by Postgres (one with an SQLState method), the session must be usable as
	// before, unless Postgres ended it. After any other error the session is not used again.
	// ctx may have no deadline: then Close is what ends a statement that hangs.
	QueryText(ctx context.Context, sql string, args ...string) (string, error)

	// QueryTextSimple sends sql, one or more statements without parameters, as one message of
	// the simple query protocol. It returns the result of these statements, a single row
	// with a single text value. It must leave nothing on the session beyond what sql
	// itself does, in particular no prepared statement: pglock uses it to identify a
	// session before it knows whether other clients share it. Errors and ctx are as for
	// QueryText.
	QueryTextSimple(ctx context.Context, sql string) (string, error)

	// Watch blocks until the session is lost, and returns the reason. If ctx ends first,
	// it returns nil and leaves the session usable. It only reads from the connection and
	// runs no statement. If the driver cannot do that, Watch returns an error that
	// matches errors.ErrUnsupported, and the Locker polls the session instead.
	Watch(ctx context.Context) error

	// PID returns the backend's process ID that the server sent when the session began
	// (BackendKeyData in the protocol), or 0 if the driver does not expose it. pglock
	// uses it to detect a connection pooler.
	PID() uint32

	// Close ends the session, so that Postgres releases its locks. It must not return the
	// session to a pool. It may be called at any time, more than once, and while QueryText or
	// Watch runs in another goroutine; that call then soon returns an error. Close waits
	// for the network only briefly.
	Close() error
}

// A Notifier is a [Session] that receives notifications (PostgreSQL manual, LISTEN). A
// Locker with leases uses it to be notified of a release; without, it asks from time to
// time.
type Notifier interface {
	Session

	// Notification waits for the next notification of the session, and returns its
	// payload. An error ends the session, also when ctx ends first.
	Notification(ctx context.Context) (payload string, err error)
}

// A Notice is a message of the server that is no error (PostgreSQL manual, 53.8 "Error and
// Notice Message Fields").
type Notice struct {
	Severity string // such as "DEBUG", never translated
	Code     string // the SQLSTATE
	Message  string // in the language of lc_messages
	Routine  string // the function in the source of Postgres that sent it
}

// A Scripter is a [Session] for statements of a file that others wrote. Package trace
// needs one to read the server's notices and to send the data of COPY; with another
// Session it does without notices, and refuses COPY ... FROM stdin.
type Scripter interface {
	Session

	// OnNotice sets the function that gets the notices that the server sends from now on.
	// It is called while a statement of the session runs. nil stops that.
	OnNotice(func(Notice))

	// CopyFrom runs a COPY ... FROM stdin, and sends the data.
	CopyFrom(ctx context.Context, sql string, data io.Reader) error
}

// A Tx is a transaction that a [Beginner] began. Native is the driver's own transaction,
// and Conn is the same one for pglock. One of Commit and Rollback ends it.
type Tx[T any] struct {
	Native   T
	Conn     Conn
	Commit   func(context.Context) error
	Rollback func(context.Context) error
}

// A Beginner begins transactions for pglock.DoTx and pglock.DoTables. T is the driver's
// type of a transaction. It must be safe for concurrent use.
type Beginner[T any] interface {
	// Begin begins a transaction. ctx covers the beginning, and the driver may roll the
	// transaction back when it ends, as database/sql does.
	Begin(ctx context.Context) (Tx[T], error)
}

// An Acquired is a connection for the exclusive use of the caller until its Release.
// Native is the driver's own connection, and Conn is the same one for pglock.
type Acquired[C any] struct {
	Native C
	Conn   Conn

	// Release gives the connection back to its pool if reuse is true, and closes it
	// otherwise. reuse must be false if the connection may be in an unusual state, such as
	// with a setting that was not restored. Release takes a limited time, and only its
	// first call has an effect.
	Release func(reuse bool)
}

// A Database opens sessions and provides connections: what prioritize.Run needs. C is the
// driver's type of a connection. *pgxlock.Database and *sqllock.Database implement it. It
// must be safe for concurrent use.
type Database[C any] interface {
	Source

	// Acquire takes a connection from a pool, or opens one. ctx covers only that.
	Acquire(ctx context.Context) (Acquired[C], error)
}
