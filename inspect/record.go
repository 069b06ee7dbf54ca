package inspect

import "strings"

// parseRecord splits the text of a row value, such as (relation,16384,,"a b"), into its
// fields, which may be parts of text, and returns their number, or -1 if text is not
// a row value. NULL and "" are the same. (PostgreSQL manual, 8.16.6 "Composite Type
// Input and Output Syntax".)
func parseRecord(text string, fields []string) int {
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return -1
	}
	text = text[1 : len(text)-1]
	for n := 0; ; n++ {
		if n == len(fields) {
			return -1
		}
		if text != "" && text[0] == '"' {
			field, rest, ok := parseQuoted(text)
			if !ok {
				return -1
			}
			fields[n] = field
			if rest == "" {
				return n + 1
			}
			text = rest[1:]
			continue
		}
		i := strings.IndexByte(text, ',')
		if i < 0 {
			fields[n] = text
			return n + 1
		}
		fields[n], text = text[:i], text[i+1:]
	}
}

// parseQuoted parses a field in double quotes, in which each quote and backslash is
// doubled. rest is empty or begins with the comma after it.
func parseQuoted(text string) (field, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		c := text[i]
		if c == '"' || c == '\\' {
			if i+1 < len(text) && (text[i+1] == c || c == '\\') {
				i++
				b.WriteByte(text[i])
				continue
			}
			if c == '\\' {
				return "", "", false
			}
			rest = text[i+1:]
			return b.String(), rest, rest == "" || rest[0] == ','
		}
		b.WriteByte(c)
	}
	return "", "", false
}
