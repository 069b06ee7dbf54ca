// Package sqlannotate makes database/sql send the values of [inspect.Annotate] as comments
// in its statements, so that anyone who inspects the locks sees what they are for:
//
//	db := sqlannotate.DB(pool)
//	ctx = inspect.Annotate(ctx, "job", "nightly-report")
//	_, err := db.ExecContext(ctx, "UPDATE orders SET state = 'sent'")
//
// The server then sees UPDATE orders SET state = 'sent' /*job='nightly-report'*/, and
// inspect.Locks returns it as the Context of the session. With [inspect.DjangoComment]
// django-pglock reads it, too. For pgx there is package pgxannotate. The values must not be
// secret: all roles that may see queries see them.
package sqlannotate

import (
	"context"
	"database/sql"

	"github.com/pglock-go/pglock/inspect"
)

// A Runner runs statements through database/sql. A *sql.DB, a *sql.Conn, a *sql.Tx and
// their wrappers implement it.
type Runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// DB returns a Runner that sends statements through db with the comments that
// [inspect.Comment] adds. It can replace db wherever only these methods are needed, as in
// code that sqlc generates, or as the ConnPool of GORM. Prepared statements are not
// changed, because they outlive the ctx that they are prepared with.
func DB(db Runner, opts ...inspect.CommentOption) Runner { return annotated{db, opts} }

type annotated struct {
	Runner
	opts []inspect.CommentOption
}

func (a annotated) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return a.Runner.ExecContext(ctx, inspect.Comment(ctx, query, a.opts...), args...)
}

func (a annotated) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return a.Runner.QueryContext(ctx, inspect.Comment(ctx, query, a.opts...), args...)
}

func (a annotated) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return a.Runner.QueryRowContext(ctx, inspect.Comment(ctx, query, a.opts...), args...)
}
