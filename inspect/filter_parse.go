package inspect

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A filter looks like a condition in SQL, and people write it as one. Their input
// means what it means in SQL, or is refused with an explanation of what to write
// instead.

// operators lists the operators. <> is the same as !=.
var operators = []string{"!=", "<>", "!~", "<=", ">=", "=", "~", "<", ">"}

// wordOperators lists the operators that are words.
var wordOperators = []string{opIn, opNotIn, opIsNull, opIsNotNull}

// operatorList lists the operators for errors.
const operatorList = "!= !~ <= >= = ~ < >, in (...), not in (...), is null, is not null"

// operatorText lists operators for errors, as operatorList does.
func operatorText(list []string) string {
	var symbols, words []string
	for _, operator := range list {
		switch operator {
		case opIn, opNotIn:
			words = append(words, operator+" (...)")
		case opIsNull, opIsNotNull:
			words = append(words, operator)
		default:
			symbols = append(symbols, operator)
		}
	}
	return strings.Join(append([]string{strings.Join(symbols, " ")}, words...), ", ")
}

// normalOperator returns an operator that is a word in lower case with single spaces.
func normalOperator(operator string) string {
	if normal := strings.ToLower(strings.Join(strings.Fields(operator), " ")); slices.Contains(wordOperators, normal) {
		return normal
	}
	return operator
}

// operatorRunes are the characters of operators, in SQL too.
const operatorRunes = "=!<>~*"

// splitFilter splits the text of a filter into field, operator and value.
func splitFilter(text string) (field, operator, value string, err error) {
	for _, pattern := range []*regexp.Regexp{inPattern(), nullPattern()} {
		if m := pattern.FindStringSubmatch(text); m != nil {
			return m[1], normalOperator(m[2]), strings.TrimSpace(m[3]), nil
		}
	}
	if hint := keywordHint(text); hint != "" {
		return "", "", "", fmt.Errorf("%s", hint)
	}
	at := strings.IndexAny(text, "=!<>~")
	if at < 0 {
		if a, _, ok := findAttribute(strings.TrimSpace(text)); ok && is[bool](a) {
			return "", "", "", fmt.Errorf("it has no operator: write %s = true or %s = false", a.Name, a.Name)
		}
		return "", "", "", fmt.Errorf("it has no operator: it takes FIELD OP VALUE in one piece; write for example \"state = idle\"; the operators are %s", operatorList)
	}
	end := at
	for end < len(text) && strings.IndexByte(operatorRunes, text[end]) >= 0 {
		end++
	}
	field, operator, value = strings.TrimSpace(text[:at]), text[at:end], strings.TrimSpace(text[end:])
	if !slices.Contains(operators, operator) {
		return "", "", "", operatorError(field, operator, value)
	}
	return field, operator, value, nil
}

// operatorError returns an error about an unknown operator that explains what to
// write instead.
func operatorError(field, operator, value string) error {
	hint := "there are " + strings.Join(operators, " ")
	if strings.HasSuffix(field, "-") {
		return fmt.Errorf("write context.KEY = VALUE for a part of the context; the operators are %s", operatorList)
	}
	switch strings.ToUpper(operator) {
	case "==", "===":
		hint = fmt.Sprintf("write %s = %s", field, value)
	case "=!", "!==":
		hint = fmt.Sprintf("write %s != %s", field, value)
	case "=~":
		hint = fmt.Sprintf("write %s ~ %s", field, value)
	case "=>":
		hint = fmt.Sprintf("write %s >= %s", field, value)
	case "=<":
		hint = fmt.Sprintf("write %s <= %s", field, value)
	case "~*":
		hint = fmt.Sprintf("for a regular expression that ignores case write %s ~ (?i)%s", field, unquoted(value))
	case "!~*":
		hint = fmt.Sprintf("for a regular expression that ignores case write %s !~ (?i)%s", field, unquoted(value))
	case "~~", "LIKE", "~~*", "ILIKE", "!~~", "NOT LIKE", "!~~*", "NOT ILIKE":
		hint = fmt.Sprintf("write a regular expression: %s", likeHint(field, strings.ToUpper(operator), value))
	}
	if len(operator) > 1 && slices.Contains(operators, operator[:1]) {
		hint += fmt.Sprintf("; if that is a value, write %s %s %s", field, operator[:1], quote(operator[1:]+value))
	}
	return fmt.Errorf("%q is not an operator: %s", termtext.Short(operator), termtext.Short(hint))
}

var (
	// inPattern and nullPattern match a condition whose operator is a word. The operator
	// is the first thing after the field, so it is not in a value.
	inPattern   = lazyregexp.New(`(?is)^\s*([^\s=!<>~]+)\s+((?:not\s+)?in)\s*(\(.*)$`)
	nullPattern = lazyregexp.New(`(?is)^\s*([^\s=!<>~]+)\s+(is\s+(?:not\s+)?null)\s*;?()\s*$`)
)

// keywordPattern matches a condition whose operator is a keyword of SQL.
var keywordPattern = lazyregexp.New(`(?is)^\s*\(*\s*(not\s+)?([\w."]+)(?:\s+(not\s+)?(like|ilike|similar\s+to|in|between|is)\b\s*(.*))?$`)

// keywordHint explains what to write instead of a condition whose operator is a
// keyword, or returns "" if text is not such a condition.
func keywordHint(text string) string {
	m := keywordPattern().FindStringSubmatch(text)
	if m == nil || m[1] == "" && m[4] == "" {
		if rest, ok := cutWord(text, "NOT"); ok { // NOT application = x
			return fmt.Sprintf("there is no NOT: write != for =, and !~ for ~, in %s", rest)
		}
		return ""
	}
	field, not := m[2], (m[1] != "") != (m[3] != "")
	attribute, _, ok := findAttribute(field)
	rest := strings.TrimSpace(m[5])
	match, in := "~", opIn
	if not {
		match, in = "!~", opNotIn
	}
	switch keyword := strings.ToUpper(strings.Join(strings.Fields(m[4]), " ")); {
	case !ok:
		return "" // the field is wrong
	case keyword == "":
		return fmt.Sprintf("there is no NOT: write %s = false", field)
	case keyword == "LIKE" || keyword == "ILIKE":
		if not {
			keyword = "NOT " + keyword
		}
		return fmt.Sprintf("there is no LIKE: write a regular expression: %s", likeHint(field, keyword, rest))
	case keyword == "SIMILAR TO":
		return fmt.Sprintf("there is no SIMILAR TO: write a regular expression: %s %s ^(...)$", field, match)
	case keyword == "IN" && strings.HasPrefix(rest, "("):
		return fmt.Sprintf("NOT is written after the field: write %s %s %s", field, in, rest)
	case keyword == "IN":
		return fmt.Sprintf("the values of %s are in parentheses: write %s %s (%s)", in, field, in, strings.Trim(rest, "() "))
	case keyword == "BETWEEN":
		low, high, _ := strings.Cut(strings.ToUpper(rest), " AND ")
		return fmt.Sprintf("there is no BETWEEN: write two filters, %s >= %s and %s <= %s",
			field, rest[:len(low)], field, strings.TrimSpace(rest[max(0, len(rest)-len(high)):]))
	case is[bool](attribute):
		words := strings.Fields(strings.ToUpper(rest))
		value := slices.Contains(words, "TRUE") != (slices.Contains(words, "NOT") != not)
		return fmt.Sprintf("is takes only null or not null: write %s = %v", field, value)
	}
	operator := opIsNull
	if not != slices.Contains(strings.Fields(strings.ToUpper(rest)), "NOT") {
		operator = opIsNotNull
	}
	return fmt.Sprintf("is takes only null or not null: write %s %s, or a comparison", field, operator)
}

// cutWord returns text without the word that it begins with.
func cutWord(text, word string) (string, bool) {
	text = strings.TrimSpace(text)
	if len(text) > len(word) && strings.EqualFold(text[:len(word)], word) && (text[len(word)] == ' ' || text[len(word)] == '\t') {
		return strings.TrimSpace(text[len(word):]), true
	}
	return "", false
}

// likeHint converts a pattern of LIKE to a filter.
func likeHint(field, operator, pattern string) string {
	match, prefix := "~", ""
	if strings.HasPrefix(operator, "!") || strings.HasPrefix(operator, "NOT") {
		match = "!~"
	}
	if strings.HasSuffix(operator, "*") || strings.HasSuffix(operator, "ILIKE") {
		prefix = "(?i)"
	}
	expression := regexp.QuoteMeta(unquoted(pattern))
	if rest, ok := strings.CutPrefix(expression, "%"); ok {
		expression = rest
	} else {
		expression = "^" + expression
	}
	if rest, ok := strings.CutSuffix(expression, "%"); ok {
		expression = rest
	} else {
		expression += "$"
	}
	expression = strings.NewReplacer("%", ".*", "_", ".").Replace(expression)
	return fmt.Sprintf("%s %s %s", field, match, prefix+expression)
}

// quote returns a value in single quotes as in SQL, with each quote in it doubled, so
// that a filter takes it literally.
func quote(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }

// quoteList returns values as the list of in.
func quoteList(values []string) string {
	var quoted []string
	for _, value := range values {
		quoted = append(quoted, quote(value))
	}
	return "(" + strings.Join(quoted, ", ") + ")"
}

// unquoted returns the value of a quoted string, or text itself.
func unquoted(text string) string {
	if value, rest, ok := cutLiteral(text); ok && rest == "" {
		return value
	}
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		return text[1 : len(text)-1]
	}
	return text
}

// cutLiteral reads the quoted string that text begins with, and returns what follows
// it.
func cutLiteral(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, "'") {
		return "", "", false
	}
	for i := 1; i < len(text); i++ {
		if text[i] != '\'' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '\'' {
			i++
			continue
		}
		return strings.ReplaceAll(text[1:i], "''", "'"), strings.TrimSpace(text[i+1:]), true
	}
	return "", "", false
}

var (
	andPattern  = lazyregexp.New(`(?i)(^|\s)(and|or)(\s|$)`)
	castPattern = lazyregexp.New(`(?i)::\s*(pg_catalog\.)?"?(text|varchar|char|bpchar|name|int|int2|int4|int8|integer|bigint|smallint|oid|xid|bool|boolean|interval|date|time|timestamp|timestamptz|numeric|float|float4|float8|regclass|regtype|inet|cidr|json|jsonb|uuid|bytea)\b"?[\s\w()\[\]]*$`)
	callPattern = lazyregexp.New(`(?is)^([a-z_][a-z0-9_.]*|(any|all|some)\s*)\(.*\)$`)
	oddPattern  = lazyregexp.New(`(?is)^(e|n|b|x|u&)'.*'$|^\$[a-z_]*\$.*\$[a-z_]*\$$|^\$[0-9]+$|^:'`)
)

// specialWords are the keywords of SQL that are values without parentheses.
var specialWords = []string{
	"null", "current_user", "session_user", "current_role", "user", "current_catalog", "current_schema",
	"current_timestamp", "current_date", "localtimestamp",
}

// subqueryPattern matches what would be a subquery in SQL.
var subqueryPattern = lazyregexp.New(`(?i)^(select|values|with|table)\s`)

// readValues reads the values of a filter as a person wrote them.
func readValues(field, operator string, a Attribute, text string) ([]string, error) {
	switch operator {
	case opIsNull, opIsNotNull:
		return nil, nil
	case opIn, opNotIn:
	default:
		value, err := readValue(field, operator, a, text)
		return []string{value}, err
	}
	items, err := splitList(text)
	if err != nil {
		return nil, fmt.Errorf("%w: write %s %s (..., ...), with single quotes around a value that has commas, quotes or brackets", err, field, operator)
	}
	if len(items) > maxValues {
		return nil, fmt.Errorf("the list has %d values: there may be %d", len(items), maxValues)
	}
	var values []string
	for _, item := range items {
		if subqueryPattern().MatchString(item) {
			return nil, fmt.Errorf("there are no subqueries: write the values themselves; if the value is just that, write %s %s (%s)", field, operator, quote(item))
		}
		if strings.EqualFold(item, "null") {
			return nil, fmt.Errorf("nothing is equal to NULL: write the list without it, or a separate filter %s is null; if it is text, write 'null' in quotes", field)
		}
		value, err := readValue(field, "=", a, item)
		if err != nil {
			return nil, fmt.Errorf("in the list: %w", err)
		}
		values = append(values, value)
	}
	return values, nil
}

// splitList splits a list such as (active, 'idle in transaction') into its values as
// they are written. A semicolon may follow it.
func splitList(text string) ([]string, error) {
	rest := strings.TrimSpace(strings.TrimPrefix(text, "("))
	if strings.HasPrefix(rest, ")") {
		return nil, errors.New("the list is empty")
	}
	var items []string
	for {
		item, after, err := cutItem(rest)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
		switch {
		case strings.HasPrefix(after, ","):
			rest = strings.TrimSpace(after[1:])
		case strings.HasPrefix(after, ")"):
			if after = strings.TrimSpace(after[1:]); after != "" && after != ";" {
				return nil, fmt.Errorf("nothing may follow the list, and there is %q", termtext.Short(after))
			}
			return items, nil
		default:
			return nil, errors.New("the list has no end")
		}
	}
}

// cutItem returns the value that a list begins with, and the rest from the comma or the
// parenthesis after it. Parentheses in the value must be balanced.
func cutItem(text string) (item, rest string, err error) {
	if strings.HasPrefix(text, "'") {
		_, rest, ok := cutLiteral(text)
		if !ok {
			return "", "", errors.New("the quotes do not match")
		}
		if rest != "" && rest[0] != ',' && rest[0] != ')' {
			return "", "", errors.New("nothing may follow the quotes but a comma")
		}
		return strings.TrimSpace(text[:len(text)-len(rest)]), rest, nil
	}
	depth := 0
	for i, c := range text {
		switch c {
		case '\'', '"', '[', ']', '{', '}': // a comma in JSON or in an array is part of the value
			return "", "", fmt.Errorf("a value without quotes has a %c in it", c)
		case '(':
			depth++
		case ')', ',':
			if depth == 0 {
				return strings.TrimSpace(text[:i]), text[i:], nil
			}
			if c == ')' {
				depth--
			}
		}
	}
	return "", "", errors.New("the list has no end")
}

// readValue reads the value of a filter as a person wrote it. In single quotes it is
// a string as in SQL. Without quotes it is taken literally, and refused if it looks
// like SQL that would have another meaning.
func readValue(field, operator string, a Attribute, text string) (string, error) {
	filter := field + " " + operator + " "
	if strings.HasPrefix(text, "'") {
		value, rest, ok := cutLiteral(text)
		switch {
		case !ok:
			return "", fmt.Errorf("the quotes do not match: write %s", filter+quote(text))
		case rest == "" || rest == ";":
			return value, nil
		case strings.HasPrefix(rest, "::"):
			return "", fmt.Errorf("there are no casts: write %s", filter+quote(value))
		case andPattern().MatchString(rest):
			return "", fmt.Errorf("a filter is one condition: write %s, and each other condition as a separate filter; all must match", filter+quote(value))
		}
		return "", fmt.Errorf("nothing may follow the quotes: write %s, or %s if all of that is the value", filter+quote(value), filter+quote(text))
	}
	itself := fmt.Sprintf("; if the value is just that, write %s", filter+quote(text))
	equality := operator == "=" || operator == "!=" || operator == "<>"
	switch lower := strings.ToLower(text); {
	case text == "":
		return "", fmt.Errorf("it has no value: write %s'' if you mean missing text", filter)
	case strings.ContainsRune(operatorRunes, rune(text[0])):
		return "", fmt.Errorf("%q is not an operator: there are %s%s", operator+" "+text[:1], operatorList, itself)
	case len(text) > 2 && text[0] == '"' && text[len(text)-1] == '"':
		return "", fmt.Errorf("in SQL double quotes are for names: write %s, or %s%s", filter+quote(unquoted(text)), filter+unquoted(text), itself)
	case strings.HasSuffix(text, ";"):
		return "", fmt.Errorf("it ends in a semicolon: write %s%s", filter+strings.TrimRight(text, "; "), itself)
	case andPattern().MatchString(text):
		return "", fmt.Errorf("there is no AND and no OR: write each condition as a separate filter, which must all match, or alternatives as %s in (..., ...)%s", field, itself)
	case castPattern().MatchString(text):
		return "", fmt.Errorf("there are no casts: write %s%s", filter+strings.TrimSpace(text[:castPattern().FindStringIndex(text)[0]]), itself)
	case oddPattern().MatchString(text):
		return "", fmt.Errorf("strings are written as 'x'%s", itself)
	case !is[string](a):
		return text, nil // the rest is checked when it is parsed
	case slices.Contains(specialWords, lower) && lower == "null":
		return "", fmt.Errorf("nothing is %s NULL: write %s is null, or %s is not null%s", operator, field, field, itself)
	case equality && slices.Contains(specialWords, lower), equality && callPattern().MatchString(text):
		return "", fmt.Errorf("a filter has no functions: write the value itself%s", itself)
	case equality && a.Name != "key" && strings.HasPrefix(text, "("), strings.HasPrefix(text, "('"):
		return "", fmt.Errorf("there are no parentheses: write one value, or %s in (..., ...)%s", field, itself)
	case equality && strings.Contains(text, "||"):
		return "", fmt.Errorf("a filter has no expressions: write the value itself%s", itself)
	case strings.HasPrefix(text, "%") || strings.HasSuffix(text, "%"):
		like := "LIKE"
		if operator == "!=" || operator == "<>" || operator == "!~" {
			like = "NOT LIKE"
		}
		return "", fmt.Errorf("%% is a wildcard only in LIKE: write %s%s", likeHint(field, like, text), itself)
	}
	return text, nil
}

// checkUnquoted returns an error for a value of Where that is written as in SQL. A
// program's values are literal and not parsed as SQL: of two applications, payments
// and 'payments' with the quotes, the filter would select the wrong one.
func checkUnquoted(field, operator, value string) error {
	if (operator == opIn || operator == opNotIn) && field != "key" && strings.HasPrefix(value, "(") && strings.HasSuffix(value, ")") {
		return fmt.Errorf("a value is not SQL and has no parentheses: write Where(%q, %q, ...) with each value as an argument, or ParseFilter(%q) if the parentheses are part of it",
			field, operator, field+" "+operator+" "+quoteList([]string{value}))
	}
	inner, rest, ok := cutLiteral(value)
	quoted := ok && (rest == "" && inner != "" || strings.HasPrefix(rest, "::"))
	if !quoted && len(value) > 2 && value[0] == '"' && value[len(value)-1] == '"' {
		inner, quoted = value[1:len(value)-1], true
	}
	if !quoted {
		return nil
	}
	return fmt.Errorf("a value is not SQL and has no quotes: write Where(%q, %q, %q), or ParseFilter(%q) if the quotes are part of it",
		field, operator, inner, field+" "+operator+" "+quote(value))
}

// sqlNames maps column names of the catalogs, and fields of django-pglock, to fields.
var sqlNames = map[string]string{
	"usename": "user", "rolname": "user", "usesysid": "user", "datname": "database", "application_name": "application", "client_addr": "client",
	"locktype": "type", "relname": "relation", "nspname": "schema", "relkind": "kind", "waitstart": "wait_start",
	"activity_id": "pid", "rel_name": "relation", "rel_kind": "kind", "start": "query_start",
}

// djangoLookups maps the lookups of Django to operators.
var djangoLookups = map[string]string{
	"exact": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "regex": "~", "in": opIn, "isnull": opIsNull,
}

// djangoHint returns the filter that a lookup of django-pglock means, such as
// duration > 5s for activity__duration__gt=5s, or "".
func djangoHint(field, value string) string {
	if !strings.Contains(field, "__") {
		return ""
	}
	if rest, ok := strings.CutPrefix(field, "blocking_activity__"); ok {
		field = blockingPrefix + rest
	}
	parts := strings.Split(strings.TrimPrefix(field, "activity__"), "__")
	operator, ok := djangoLookups[parts[len(parts)-1]]
	if ok {
		parts = parts[:len(parts)-1]
	} else {
		operator = "="
	}
	name := strings.Join(parts, ".")
	if hint := fieldHint(name); hint != "" {
		name = hint
	}
	if _, _, ok := findAttribute(name); !ok {
		return ""
	}
	switch operator {
	case opIn:
		value = "(" + value + ")"
	case opIsNull:
		if strings.EqualFold(value, "false") {
			operator = opIsNotNull
		}
		value = ""
	}
	return strings.TrimSpace(name + " " + operator + " " + termtext.Short(value))
}

// fieldHint returns the field that was probably meant, or "".
func fieldHint(field string) string {
	name := strings.ToLower(strings.ReplaceAll(field, `"`, ""))
	if i := strings.LastIndex(name, "."); i >= 0 && !strings.HasPrefix(name, contextPrefix) {
		name = name[i+1:]
	}
	prefix := ""
	if rest, ok := strings.CutPrefix(name, blockingPrefix); ok {
		prefix, name = blockingPrefix, rest
	}
	if other, ok := sqlNames[name]; ok {
		name = other
	}
	if _, _, ok := findAttribute(prefix + name); ok && prefix+name != field {
		return prefix + name
	}
	return ""
}
