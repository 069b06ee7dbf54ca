package inspect

import (
	"context"
	"database/sql"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// annotations is the key of a context for what Annotate adds to it.
type annotations struct{}

// Annotate notes in ctx what its work is for: which request, job or function, say.
// Statements that [Comment], [AnnotateSQL] or package pgxannotate send with ctx
// carry it, so that whoever sees their locks sees the reason too: it is the
// Context of their [Session]. A key that was there before gets the new value.
//
// It is text for people and is visible to all who may see the query: nothing
// secret belongs there.
func Annotate(ctx context.Context, key, value string) context.Context {
	notes := map[string]string{}
	maps.Copy(notes, annotated(ctx))
	notes[key] = value
	return context.WithValue(ctx, annotations{}, notes)
}

func annotated(ctx context.Context) map[string]string {
	notes, _ := ctx.Value(annotations{}).(map[string]string)
	return notes
}

// visible is how many bytes of a statement the server shows unless
// track_activity_query_size says otherwise, less its end mark.
const visible = 1023

// Comment is the statement with a comment that says what [Annotate] noted in ctx,
// in the form of sqlcommenter; the statement itself when there is nothing to say.
// The comment comes at the end, where other tools look for it, or at the beginning
// when the statement is so long that the server would not show its end.
//
// Statements that differ in their comments are different statements to a cache of
// prepared ones.
func Comment(ctx context.Context, statement string) string {
	notes := annotated(ctx)
	if len(notes) == 0 || statement == "" {
		return statement
	}
	var b strings.Builder
	b.WriteString(commentStart)
	for i, key := range slices.Sorted(maps.Keys(notes)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(escapeURL(key) + "='" + escapeURL(notes[key]) + "'")
	}
	b.WriteString(commentEnd)
	if len(statement)+1+b.Len() > visible {
		return b.String() + " " + statement
	}
	return statement + " " + b.String()
}

// escapeURL leaves nothing that could end the comment or the value.
func escapeURL(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// An SQL is what runs statements through database/sql: a *sql.DB, a *sql.Conn or a
// *sql.Tx, or what wraps one.
type SQL interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// AnnotateSQL sends statements through db with the comments that [Comment] makes.
// What it returns serves wherever db does by these methods, as in code that sqlc
// generates, or as the ConnPool of GORM. Prepared statements stay as they are: they
// outlive the ctx that they are prepared with.
func AnnotateSQL(db SQL) SQL { return annotatedSQL{db} }

type annotatedSQL struct{ SQL }

func (a annotatedSQL) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return a.SQL.ExecContext(ctx, Comment(ctx, query), args...)
}

func (a annotatedSQL) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return a.SQL.QueryContext(ctx, Comment(ctx, query), args...)
}

func (a annotatedSQL) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return a.SQL.QueryRowContext(ctx, Comment(ctx, query), args...)
}
