// Package pgxannotate makes pgx send the values of [inspect.Annotate] as comments in
// its statements, so that anyone who inspects the locks sees what they are for:
//
//	db := pgxannotate.DB(pool)
//	ctx = inspect.Annotate(ctx, "job", "nightly-report")
//	_, err := db.Exec(ctx, "UPDATE orders SET state = 'sent'")
//
// The server then sees UPDATE orders SET state = 'sent' /*job='nightly-report'*/, and
// inspect.Locks returns it as the Context of the session. With [inspect.DjangoComment]
// django-pglock reads it, too. For database/sql there is package sqlannotate. The values
// must not be secret: all roles that may see
// queries see them.
package pgxannotate

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
)

// A Runner runs statements with pgx: a pool, a connection or a transaction. It is the
// DBTX of code that sqlc generates.
type Runner interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// DB returns a Runner that sends statements through db with the comments that
// [inspect.Comment] adds.
//
// A statement with a comment is not prepared and cached, since each comment makes it
// a different statement; it is described each time instead, which costs one more
// round trip. A mode among args takes precedence, and so does a default mode of db
// that caches nothing.
func DB(db Runner, opts ...inspect.CommentOption) Runner { return annotated{db, keeps(db), opts} }

type annotated struct {
	db    Runner
	keeps bool // db may cache statements
	opts  []inspect.CommentOption
}

// keeps reports whether db prepares and caches statements by default.
func keeps(db Runner) bool {
	var mode pgx.QueryExecMode
	switch db := db.(type) {
	case interface{ Config() *pgxpool.Config }:
		mode = db.Config().ConnConfig.DefaultQueryExecMode
	case interface{ Config() *pgx.ConnConfig }:
		mode = db.Config().DefaultQueryExecMode
	case interface{ Conn() *pgx.Conn }:
		if db.Conn() == nil {
			return true
		}
		mode = db.Conn().Config().DefaultQueryExecMode
	}
	return mode == pgx.QueryExecModeCacheStatement || mode == pgx.QueryExecModeCacheDescribe
}

// annotate adds the comment, and the mode before the other arguments, so that a mode
// of the caller comes later and wins.
func (a annotated) annotate(ctx context.Context, sql string, args []any) (string, []any) {
	commented := inspect.Comment(ctx, sql, a.opts...)
	if commented == sql || !a.keeps {
		return commented, args
	}
	return commented, append([]any{pgx.QueryExecModeDescribeExec}, args...)
}

func (a annotated) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	sql, args = a.annotate(ctx, sql, args)
	return a.db.Exec(ctx, sql, args...)
}

func (a annotated) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	sql, args = a.annotate(ctx, sql, args)
	return a.db.Query(ctx, sql, args...)
}

func (a annotated) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	sql, args = a.annotate(ctx, sql, args)
	return a.db.QueryRow(ctx, sql, args...)
}
