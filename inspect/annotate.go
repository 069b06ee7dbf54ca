package inspect

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// annotationsKey is the context key of the values that Annotate adds.
type annotationsKey struct{}

// Annotate records in ctx what the work is for, such as a request, a job or a
// function. Statements that [Comment] or packages pgxannotate and sqlannotate send with
// ctx carry it, so that anyone who inspects their locks sees the reason too: it is the
// Context of their [Session]. A new value replaces an earlier one of the same key.
//
// The value of the key traceparent is that of W3C Trace Context; any other value
// changes nothing, because other tools would follow it.
//
// The values are visible to all roles that may see the query, so they must not be
// secret.
func Annotate(ctx context.Context, key, value string) context.Context {
	if key == "traceparent" && !isTraceparent(value) {
		return ctx
	}
	notes := map[string]string{}
	maps.Copy(notes, annotationsOf(ctx))
	notes[key] = value
	return context.WithValue(ctx, annotationsKey{}, notes)
}

var traceparentPattern = lazyregexp.New(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[0-9A-Za-z._-]*)?$`)

// maxTraceparent is the maximum length of a traceparent of a later version, which may
// be longer than the 55 bytes of version 00.
const maxTraceparent = 256

// isTraceparent reports whether value is a traceparent (W3C Trace Context, 3.2
// "Traceparent Header").
func isTraceparent(value string) bool {
	if len(value) > maxTraceparent {
		return false
	}
	m := traceparentPattern().FindStringSubmatch(value)
	return m != nil && m[1] != "ff" && strings.Trim(m[2], "0") != "" && strings.Trim(m[3], "0") != "" &&
		(m[1] != "00" || m[4] == "")
}

func annotationsOf(ctx context.Context) map[string]string {
	notes, _ := ctx.Value(annotationsKey{}).(map[string]string)
	return notes
}

// shownQueryBytes is how many bytes of a statement the server shows with the default
// track_activity_query_size, without the terminating NUL.
const shownQueryBytes = 1023

// A CommentOption changes the comments that [Comment] and the packages pgxannotate and
// sqlannotate write.
type CommentOption func(*commentOptions)

// A commentOptions is the sum of the options of one call.
type commentOptions struct{ django bool }

// DjangoComment writes comments as django-pgactivity does, so that it and django-pglock
// show the values: a JSON object at the beginning of the statement, as in
// /*pga_context={"job": "nightly"}*/. In a value, a NUL and bytes that are not UTF-8
// become U+FFFD, because otherwise django-pgactivity could list no session at all.
func DjangoComment() CommentOption { return func(o *commentOptions) { o.django = true } }

// Comment returns statement with a comment that has the values of [Annotate] in ctx, or
// statement itself if there are none. The comment has the form of sqlcommenter, unless
// there is [DjangoComment]. It is at the end, where other tools look for it, or at the
// beginning if the statement is so long that the server would cut off its end.
//
// Statements with different comments are different statements to a cache of prepared
// statements.
func Comment(ctx context.Context, statement string, opts ...CommentOption) string {
	var options commentOptions
	for _, opt := range opts {
		opt(&options)
	}
	notes := annotationsOf(ctx)
	if len(notes) == 0 || statement == "" {
		return statement
	}
	keys := slices.Sorted(maps.Keys(notes))
	if options.django {
		var pairs []string
		for _, key := range keys {
			pairs = append(pairs, escapeJSON(key)+": "+escapeJSON(notes[key]))
		}
		// django-pgactivity looks for the line break.
		return djangoStart + "{" + strings.Join(pairs, ", ") + "}" + commentEnd + "\n" + statement
	}
	var pairs []string
	for _, key := range keys {
		pairs = append(pairs, escapeURL(key)+"='"+escapeURL(notes[key])+"'")
	}
	comment := commentStart + strings.Join(pairs, ",") + commentEnd
	if len(statement)+1+len(comment) > shownQueryBytes {
		return comment + " " + statement
	}
	return statement + " " + comment
}

// escapeURL escapes every character that could end the comment or the value.
func escapeURL(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// escapeJSON returns s as a JSON string in which every character is escaped that could
// end the comment, that the pattern of django-pgactivity does not accept, that a driver
// might take for a placeholder, or that the encoding of the database might not have.
func escapeJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range safeText(s) {
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" -_.,/:=+()", r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
