// Package pgxannotate makes pgx send what [inspect.Annotate] notes, as comments in
// its statements, so that whoever looks at the locks sees what they are for:
//
//	db := pgxannotate.DB(pool)
//	ctx = inspect.Annotate(ctx, "job", "nightly-report")
//	_, err := db.Exec(ctx, "UPDATE orders SET state = 'sent'")
//
// The server then sees UPDATE orders SET state = 'sent' /*job='nightly-report'*/, and
// inspect.Locks has it as the Context of the session. For database/sql there is
// [inspect.AnnotateSQL]. Nothing secret belongs there: who may see queries sees it.
package pgxannotate

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/inspect"
)

// A Runner is what runs statements with pgx: a pool, a connection or a
// transaction. It is the DBTX of code that sqlc generates.
type Runner interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// DB sends statements through db with the comments that [inspect.Comment] makes.
//
// A statement that gets one is not prepared and kept, since each comment would make
// it another; it is described each time instead, at the cost of one more round
// trip. A mode among args takes precedence, and so does one of db's own that keeps
// nothing.
func DB(db Runner) Runner { return annotated{db, keeps(db)} }

type annotated struct {
	db    Runner
	keeps bool // db keeps statements, or may
}

// keeps reports whether db prepares and keeps statements unless told otherwise.
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

// annotate adds the comment, and the mode before the other arguments, where one of
// the caller's own comes later and wins.
func (a annotated) annotate(ctx context.Context, sql string, args []any) (string, []any) {
	commented := inspect.Comment(ctx, sql)
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
