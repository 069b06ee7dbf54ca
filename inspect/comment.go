package inspect

import (
	"encoding/json"
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
// are none, context is nil and rest is query.
func splitComments(query string) (context map[string]string, rest string) {
	if !strings.Contains(query, commentStart) {
		return nil, query
	}
	rest = query
	for {
		trimmed := strings.TrimSpace(rest)
		comment, after, ok := leadingComment(trimmed)
		if !ok || !readComment(comment, &context) {
			break
		}
		rest = strings.TrimSpace(after)
	}
	for {
		trimmed := strings.TrimSpace(rest)
		statement := strings.TrimRight(trimmed, "; \t\r\n")
		before, comment, ok := trailingComment(statement)
		if !ok || !readComment(comment, &context) {
			break
		}
		rest = strings.TrimSpace(before) + strings.TrimSpace(trimmed[len(statement):])
	}
	if context == nil {
		return nil, query
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

// readComment adds the values of a comment to the map, which it creates if needed. It
// returns false and adds nothing if the comment has another format.
func readComment(comment string, context *map[string]string) bool {
	pairs, ok := djangoComment(comment)
	if !ok {
		pairs, ok = sqlComment(comment)
	}
	if !ok {
		return false
	}
	if *context == nil {
		*context = map[string]string{}
	}
	for key, value := range pairs {
		(*context)[key] = value
	}
	return true
}

// djangoComment reads a comment of django-pgactivity. Values that are not strings are
// kept as JSON.
func djangoComment(comment string) (map[string]string, bool) {
	body, ok := strings.CutPrefix(comment, djangoStart)
	if !ok {
		return nil, false
	}
	var values map[string]json.RawMessage
	if json.Unmarshal([]byte(strings.TrimSuffix(body, commentEnd)), &values) != nil || values == nil {
		return nil, false
	}
	pairs := make(map[string]string, len(values))
	for key, raw := range values {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		}
		pairs[key] = s
	}
	return pairs, true
}

// sqlComment reads a comment of sqlcommenter: key='value' pairs separated by commas.
// Keys and values are encoded as in a URL, and then each quote in a value as \'.
func sqlComment(comment string) (map[string]string, bool) {
	body := strings.TrimSpace(comment[len(commentStart) : len(comment)-len(commentEnd)])
	pairs := map[string]string{}
	for {
		key, rest, ok := strings.Cut(body, "='")
		if !ok || key == "" || strings.ContainsAny(key, " \t\r\n'") {
			return nil, false
		}
		value, rest, ok := quotedValue(rest)
		if !ok {
			return nil, false
		}
		pairs[unescapeURL(key)] = unescapeURL(value)
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
