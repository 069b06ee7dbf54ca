package inspect

import (
	"net/url"
	"strings"
)

// Applications annotate their SQL in comments. Two formats are supported:
//
//   - django-pgactivity puts a JSON object before the statement:
//     /*pga_context={"url": "/checkout/"}*/ SELECT 1
//   - sqlcommenter puts key-value pairs after it, encoded as in a URL:
//     SELECT 1 /*action='checkout',traceparent='00-5b...'*/
//
// Both are found at either end of a statement, any number of times, if they are the
// whole comment. Other comments are left in place.

const (
	commentStart = "/*"
	commentEnd   = "*/"
	djangoStart  = commentStart + "pga_context="
)

// splitComments separates the query from the annotations in its comments. If there
// are none, context is "" and rest is query.
func splitComments(query string) (context Context, rest string) {
	if !strings.Contains(query, commentStart) {
		return "", query
	}
	var all jsonObject
	found := false
	read := func(comment string) bool {
		o, ok := readComment(comment)
		if ok {
			all.merge(o)
			found = true
		}
		return ok
	}
	rest = query
	for {
		trimmed := strings.TrimSpace(rest)
		comment, after, ok := leadingComment(trimmed)
		if !ok || !read(comment) {
			break
		}
		rest = strings.TrimSpace(after)
	}
	for {
		trimmed := strings.TrimSpace(rest)
		statement := strings.TrimRight(trimmed, "; \t\r\n")
		before, comment, ok := trailingComment(statement)
		if !ok || !read(comment) {
			break
		}
		rest = strings.TrimSpace(before) + strings.TrimSpace(trimmed[len(statement):])
	}
	if !found {
		return "", query
	}
	if len(all.keys) > 0 {
		context = Context(all.String())
	}
	return context, rest
}

// leadingComment returns the comment that s begins with, including its delimiters.
func leadingComment(s string) (comment, after string, ok bool) {
	if !strings.HasPrefix(s, commentStart) {
		return "", "", false
	}
	i := strings.Index(s[len(commentStart):], commentEnd)
	if i < 0 {
		return "", "", false // cut off by the server
	}
	end := len(commentStart) + i + len(commentEnd)
	return s[:end], s[end:], true
}

// trailingComment returns the comment that s ends with, including its delimiters.
func trailingComment(s string) (before, comment string, ok bool) {
	if !strings.HasSuffix(s, commentEnd) {
		return "", "", false
	}
	start := strings.LastIndex(s[:len(s)-len(commentEnd)], commentStart)
	if start < 0 {
		return "", "", false
	}
	return s[:start], s[start:], true
}

// readComment reads a comment in one of the formats, or returns false.
func readComment(comment string) (*jsonObject, bool) {
	if body, ok := strings.CutPrefix(comment, djangoStart); ok {
		o, err := parseContext(strings.TrimSuffix(body, commentEnd))
		return o, err == nil
	}
	return sqlComment(comment)
}

// sqlComment reads a comment of sqlcommenter: key='value' pairs separated by commas.
// Keys and values are encoded as in a URL, and then each quote in a value as \'.
func sqlComment(comment string) (*jsonObject, bool) {
	body := strings.TrimSpace(comment[len(commentStart) : len(comment)-len(commentEnd)])
	pairs := &jsonObject{}
	for {
		key, rest, ok := strings.Cut(body, "='")
		if !ok || key == "" || strings.ContainsAny(key, " \t\r\n'") {
			return nil, false
		}
		value, rest, ok := quotedValue(rest)
		if !ok {
			return nil, false
		}
		pairs.set(safeText(unescapeURL(key)), quoteJSON(unescapeURL(value)))
		rest = strings.TrimSpace(rest)
		if rest == "" {
			return pairs, true
		}
		if body, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, false
		}
		body = strings.TrimSpace(body)
	}
}

// quotedValue reads up to the closing quote.
func quotedValue(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '\'':
			i++
			b.WriteByte('\'')
		case s[i] == '\'':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// unescapeURL decodes a value, or returns it unchanged if it is not encoded.
func unescapeURL(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}
