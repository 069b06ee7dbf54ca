package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// A Context holds the annotations in the comments of a query: a JSON object as the
// application wrote it, with the types of its values, the text of its numbers and the
// order of its keys; or "" if there are none. [json.Unmarshal] reads it into a map or
// a struct.
//
// Anybody who may run a query can write anything into its comments, so a Context is
// made safe for other programs: it has each key only once, the last one as in
// Postgres; no character that Postgres' type jsonb refuses; and a number that no
// float64 can hold is a string. What is no JSON object, or is nested deeper than 32
// levels, is no Context, and stays in the query.
type Context string

// Lookup returns the value at a path, as Postgres' operator #>> does: a string without
// its quotes, anything else as JSON. ok is false if there is none, or it is null. A
// path has the names of keys and the indexes of array elements, separated by dots, as
// in "deep.a.0"; -1 is the last element. A key that has a dot in its name is found,
// too.
func (c Context) Lookup(path string) (text string, ok bool) {
	value, ok := lookup(string(c), path)
	if !ok || value == "null" {
		return "", false
	}
	if json.Unmarshal([]byte(value), &text) != nil {
		return value, true
	}
	return text, true
}

// lookup returns the JSON at path in value, which is JSON.
func lookup(value, path string) (string, bool) {
	switch {
	case strings.HasPrefix(value, "{"):
		var members map[string]json.RawMessage
		if json.Unmarshal([]byte(value), &members) != nil {
			return "", false
		}
		// The whole path may be one key.
		for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
			member, ok := members[path[:end]]
			if !ok {
				continue
			}
			if end == len(path) {
				return string(member), true
			}
			if found, ok := lookup(string(member), path[end+1:]); ok {
				return found, true
			}
		}
	case strings.HasPrefix(value, "["):
		var elements []json.RawMessage
		index, rest, deeper := strings.Cut(path, ".")
		i, err := strconv.Atoi(index)
		if err != nil || json.Unmarshal([]byte(value), &elements) != nil {
			return "", false
		}
		if i < 0 {
			i += len(elements)
		}
		if i < 0 || i >= len(elements) {
			return "", false
		}
		if !deeper {
			return string(elements[i]), true
		}
		return lookup(string(elements[i]), rest)
	}
	return "", false
}

// MarshalJSON returns the object itself, or null if there is none.
func (c Context) MarshalJSON() ([]byte, error) {
	if c == "" {
		return []byte("null"), nil
	}
	return []byte(c), nil
}

// maxContextDepth is how deeply a Context is nested at most, which every JSON parser
// reads: jq 1.6 refuses more than 256 levels, others more than 100 or 64.
const maxContextDepth = 32

// A jsonObject is a JSON object with ordered keys. Its values are JSON.
type jsonObject struct {
	keys   []string
	values map[string]string
}

// set adds a member, or replaces the one with the same key.
func (o *jsonObject) set(key, value string) {
	if o.values == nil {
		o.values = map[string]string{}
	}
	if _, ok := o.values[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// merge adds the members of other.
func (o *jsonObject) merge(other *jsonObject) {
	for _, key := range other.keys {
		o.set(key, other.values[key])
	}
}

func (o *jsonObject) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, key := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteJSON(key) + ":" + o.values[key])
	}
	b.WriteByte('}')
	return b.String()
}

// errNoContext is the error for JSON that is no context.
var errNoContext = errors.New("no JSON object, or nested too deeply")

// parseContext parses the JSON of a context.
func parseContext(text string) (*jsonObject, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if token, err := d.Token(); err != nil || token != json.Delim('{') || !json.Valid([]byte(text)) {
		return nil, errNoContext
	}
	return readObject(d, 1)
}

// readObject reads the rest of a JSON object after its opening brace.
func readObject(d *json.Decoder, depth int) (*jsonObject, error) {
	o := &jsonObject{}
	for d.More() {
		token, err := d.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, errNoContext
		}
		value, err := readJSON(d, depth)
		if err != nil {
			return nil, err
		}
		o.set(safeText(key), value)
	}
	_, err := d.Token() // the closing brace
	return o, err
}

// readJSON reads a value of JSON, and returns it without spaces and safe for others.
func readJSON(d *json.Decoder, depth int) (string, error) {
	token, err := d.Token()
	if err != nil {
		return "", err
	}
	switch token := token.(type) {
	case json.Delim:
		if depth == maxContextDepth {
			return "", errNoContext
		}
		if token == '{' {
			o, err := readObject(d, depth+1)
			if err != nil {
				return "", err
			}
			return o.String(), nil
		}
		return readArray(d, depth+1)
	case string:
		return quoteJSON(token), nil
	case json.Number:
		if !isFloat(token.String()) {
			return quoteJSON(token.String()), nil
		}
		return token.String(), nil
	case bool:
		return strconv.FormatBool(token), nil
	}
	return "null", nil
}

// The longest number in a Context, and the longest exponent in it. float64 has at most
// 309 digits before the point.
const (
	maxNumber   = 400
	maxExponent = 3
)

// isFloat reports whether a float64 can hold a number of JSON, perhaps rounded, but
// neither as an infinity nor as zero. Postgres' numeric can hold it, too.
func isFloat(number string) bool {
	f, err := strconv.ParseFloat(number, 64)
	mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	return err == nil && len(number) <= maxNumber && len(strings.TrimLeft(exponent, "+-")) <= maxExponent &&
		(f != 0 || !strings.ContainsAny(mantissa, "123456789"))
}

// readArray reads the rest of a JSON array after its opening bracket.
func readArray(d *json.Decoder, depth int) (string, error) {
	var elements []string
	for d.More() {
		element, err := readJSON(d, depth)
		if err != nil {
			return "", err
		}
		elements = append(elements, element)
	}
	_, err := d.Token() // the closing bracket
	return "[" + strings.Join(elements, ",") + "]", err
}

// safeText returns text without what Postgres does not accept in text: NUL, and bytes
// that are not UTF-8.
func safeText(text string) string {
	return strings.ReplaceAll(validText(text), "\x00", "\ufffd")
}

// quoteJSON returns text as a JSON string.
func quoteJSON(text string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(safeText(text)); err != nil {
		return `""` // a string cannot fail
	}
	return strings.TrimSuffix(b.String(), "\n")
}
