package inspect

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// annotationsKey is the context key of the values that Annotate adds.
type annotationsKey struct{}

// Annotate records in ctx what the work is for, such as a request, a job or a
// function. Statements that [Comment] or packages pgxannotate and sqlannotate send with
// ctx carry it, so that anyone who inspects their locks sees the reason too: it is the
// Context of their [Session]. A new value replaces an earlier one of the same key.
//
// The values are visible to all roles that may see the query, so they must not be
// secret.
func Annotate(ctx context.Context, key, value string) context.Context {
	notes := map[string]string{}
	maps.Copy(notes, annotationsOf(ctx))
	notes[key] = value
	return context.WithValue(ctx, annotationsKey{}, notes)
}

func annotationsOf(ctx context.Context) map[string]string {
	notes, _ := ctx.Value(annotationsKey{}).(map[string]string)
	return notes
}

// shownQueryBytes is how many bytes of a statement the server shows with the default
// track_activity_query_size, without the terminating NUL.
const shownQueryBytes = 1023

// Comment returns statement with a comment that has the values of [Annotate] in ctx,
// in the form of sqlcommenter, or statement itself if there are none. The comment is
// at the end, where other tools look for it, or at the beginning if the statement is
// so long that the server would cut off its end.
//
// Statements with different comments are different statements to a cache of prepared
// statements.
func Comment(ctx context.Context, statement string) string {
	notes := annotationsOf(ctx)
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
	if len(statement)+1+b.Len() > shownQueryBytes {
		return b.String() + " " + statement
	}
	return statement + " " + b.String()
}

// escapeURL escapes every character that could end the comment or the value.
func escapeURL(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
