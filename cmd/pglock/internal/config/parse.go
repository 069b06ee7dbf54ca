package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/lazyregexp"
	"github.com/pglock-go/pglock/internal/termtext"
)

// Parse parses the content of a config file. path is for errors.
func Parse(path string, data []byte) (*Config, error) {
	p := &parser{path: path, data: data}
	c := &Config{Path: path}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return c, nil
	case err != nil:
		return nil, p.syntaxError(err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, p.errorf(&second, "a second YAML document begins here: a config file must have one")
	case !errors.Is(err, io.EOF):
		return nil, p.syntaxError(err)
	}
	if err := p.config(c, document.Content[0]); err != nil {
		return nil, err
	}
	return c, nil
}

// A parser makes a Config from nodes, which have line numbers.
type parser struct {
	path  string
	data  []byte
	nodes int // the number of nodes, counting those behind aliases each time
}

// maxNodes is far more than the nodes of any config file that a person writes. With
// aliases for lists, a few bytes can make many nodes.
const maxNodes = 50_000

// countNode counts a node.
func (p *parser) countNode(n *yaml.Node) error {
	if p.nodes++; p.nodes > maxNodes {
		return p.errorf(n, "not a config file: with its aliases it has more than %d keys and values", maxNodes)
	}
	return nil
}

func (p *parser) errorf(at *yaml.Node, format string, args ...any) error {
	return &Error{Path: p.path, Line: at.Line, Text: fmt.Sprintf(format, args...)}
}

var yamlLine = lazyregexp.New(`^(?:yaml: )?(?:line (\d+): )?`)

// syntaxError converts an error of the YAML package. An error about an invalid character
// or the first line has no line number.
func (p *parser) syntaxError(err error) error {
	text := err.Error()
	m := yamlLine().FindStringSubmatch(text)
	line, _ := strconv.Atoi(m[1]) // none is 0
	if line == 0 {
		line = 1 + bytes.Count(p.data[:firstInvalid(p.data)], []byte("\n"))
	}
	text = text[len(m[0]):]
	if strings.HasPrefix(text, "unknown anchor") {
		// The text has the name, which may be a password that begins with a *.
		text = "a value that begins with * is an alias, and its anchor does not exist: put text in quotes"
	}
	return &Error{Path: p.path, Line: line, Text: "not YAML: " + text}
}

// firstInvalid returns the offset of the first character that YAML does not allow, or 0.
func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 || unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\u0085", r) {
			return i
		}
		i += size
	}
	return 0
}

// A field reads the value of a key.
type field struct {
	name string
	read func(*yaml.Node) error
}

// mapping reads a mapping. Unknown and duplicate keys are errors. null is an empty
// mapping.
func (p *parser) mapping(n *yaml.Node, what string, lines map[string]int, fields ...field) error {
	return p.eachPair(n, what, func(key, value *yaml.Node) error {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if i < 0 {
			var names []string
			for _, f := range fields {
				names = append(names, f.name)
			}
			return p.errorf(key, "%s has no key %q: there are %s", what, short(key.Value), strings.Join(names, ", "))
		}
		if lines != nil {
			lines[key.Value] = key.Line
		}
		return fields[i].read(value)
	})
}

// eachPair calls f for each key and value of a mapping.
func (p *parser) eachPair(n *yaml.Node, what string, f func(key, value *yaml.Node) error) error {
	n = resolveAlias(n)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return p.errorf(n, "%s must be a mapping, not %s", what, nodeKind(n))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return p.errorf(key, "a key must be a word, not %s", nodeKind(key))
		}
		if err := p.countNode(key); err != nil {
			return err
		}
		if first, ok := seen[key.Value]; ok {
			return p.errorf(key, "%q is already on line %d", short(key.Value), first)
		}
		seen[key.Value] = key.Line
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

// resolveAlias returns the node that an alias refers to.
func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// nodeKind returns the kind of a node, for an error.
func nodeKind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "null"
	}
	return fmt.Sprintf("%q", short(n.Value))
}

// secretPattern matches text that may be a connection string.
var secretPattern = lazyregexp.New(`(?i)://|passw|secret`)

// short truncates s for an error, or hides it if it may be a secret.
func short(s string) string {
	if secretPattern().MatchString(s) {
		return "(not shown)"
	}
	return termtext.Short(s)
}

func (p *parser) text(n *yaml.Node, what string, to *string) error {
	n = resolveAlias(n)
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return p.errorf(n, "%s must be text, not %s", what, nodeKind(n))
	}
	if n.Value == "" {
		return p.errorf(n, "%s is empty", what)
	}
	*to = n.Value
	return nil
}

func (p *parser) bool(n *yaml.Node, what string, to **bool) error {
	n = resolveAlias(n)
	var b bool
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&b) != nil {
		return p.errorf(n, "%s must be true or false, not %s", what, nodeKind(n))
	}
	*to = &b
	return nil
}

// textList reads a list, or one text as a list of one.
func (p *parser) textList(n *yaml.Node, what string, read func(at *yaml.Node, text string) error) error {
	n = resolveAlias(n)
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	for _, item := range items {
		var text string
		if err := p.countNode(item); err != nil {
			return err
		}
		if err := p.text(item, "each of the "+what, &text); err != nil {
			return err
		}
		if err := read(item, text); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) config(c *Config, n *yaml.Node) error {
	c.Defaults.lines = map[string]int{}
	var defaults *yaml.Node
	err := p.mapping(n, "a config file", nil,
		field{"defaults", func(n *yaml.Node) error { defaults = n; return nil }},
		field{"databases", func(n *yaml.Node) error {
			return p.eachPair(n, "databases", func(key, value *yaml.Node) error {
				d, err := p.database(key, value)
				c.Databases = append(c.Databases, d)
				return err
			})
		}},
		field{"views", func(n *yaml.Node) error {
			return p.eachPair(n, "views", func(key, value *yaml.Node) error {
				v, err := p.view(key, value)
				c.Views = append(c.Views, v)
				return err
			})
		}},
		field{"names", func(n *yaml.Node) error { return p.names(n, &c.Names) }},
	)
	if err == nil && defaults != nil {
		err = p.mapping(defaults, "defaults", c.Defaults.lines, p.settings(&c.Defaults)...)
	}
	if err == nil {
		err = p.checkAttributes(&c.Defaults)
	}
	sort.Slice(c.Databases, func(i, j int) bool { return c.Databases[i].Name < c.Databases[j].Name })
	sort.Slice(c.Views, func(i, j int) bool { return c.Views[i].Name < c.Views[j].Name })
	return err
}

var (
	namePattern    = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)
	settingPattern = lazyregexp.New(`^[a-z][a-z0-9_]*$`)
)

func (p *parser) name(key *yaml.Node, what string) error {
	if !namePattern().MatchString(key.Value) {
		return p.errorf(key, "%q is not a name for a %s: use letters, digits, _, . and -", short(key.Value), what)
	}
	return nil
}

func (p *parser) database(key, value *yaml.Node) (Database, error) {
	d := Database{Name: key.Value, Line: key.Line}
	if err := p.name(key, "database"); err != nil {
		return d, err
	}
	if resolveAlias(value).Kind != yaml.MappingNode {
		return d, p.text(value, "a database", &d.ConnString)
	}
	return d, p.eachPair(value, "a database", func(key, value *yaml.Node) error {
		if key.Value == "read_only" { // and no setting of libpq
			var readOnly *bool
			if err := p.bool(value, key.Value, &readOnly); err != nil {
				return err
			}
			d.ReadOnly = *readOnly
			return nil
		}
		if !settingPattern().MatchString(key.Value) {
			return p.errorf(key, "%q is not a connection setting, such as host, port, user, dbname or sslmode", short(key.Value))
		}
		var text string
		if err := p.text(value, key.Value, &text); err != nil {
			return err
		}
		d.Settings = append(d.Settings, Setting{key.Value, text})
		return nil
	})
}

// settings returns the keys that both the defaults and views have.
func (p *parser) settings(v *View) []field {
	return []field{
		{"database", func(n *yaml.Node) error { return p.text(n, "database", &v.Database) }},
		{"attributes", func(n *yaml.Node) error { return p.attributes(n, "attributes", &v.Attributes) }},
		{"blocking_attributes", func(n *yaml.Node) error { return p.attributes(n, "blocking_attributes", &v.BlockingAttributes) }},
		{"session_attributes", func(n *yaml.Node) error { return p.attributes(n, "session_attributes", &v.SessionAttributes) }},
		{"limit", func(n *yaml.Node) error { return p.limit(n, &v.Limit) }},
		{"expanded", func(n *yaml.Node) error { return p.bool(n, "expanded", &v.Expanded) }},
		{"output", func(n *yaml.Node) error { return p.output(n, &v.Output) }},
	}
}

func (p *parser) view(key, value *yaml.Node) (View, error) {
	v := View{Name: key.Value, Line: key.Line, lines: map[string]int{}}
	if err := p.name(key, "view"); err != nil {
		return v, err
	}
	var filters []*yaml.Node
	err := p.mapping(value, "a view", v.lines, append(p.settings(&v),
		field{"description", func(n *yaml.Node) error { return p.text(n, "description", &v.Description) }},
		field{"filters", func(n *yaml.Node) error {
			return p.textList(n, "filters", func(at *yaml.Node, text string) error {
				f, err := inspect.ParseFilter(text)
				if err != nil {
					return p.errorf(at, "%s", strings.TrimPrefix(err.Error(), "inspect: "))
				}
				v.filters = append(v.filters, f)
				filters = append(filters, at)
				return nil
			})
		}},
		field{"tables", func(n *yaml.Node) error {
			return p.textList(n, "tables", func(at *yaml.Node, text string) error {
				if err := inspect.On(text).Err(); err != nil {
					return p.errorf(at, "%s", strings.TrimPrefix(err.Error(), "inspect: "))
				}
				v.Tables = append(v.Tables, text)
				return nil
			})
		}},
		field{"blocking", func(n *yaml.Node) error { return p.bool(n, "blocking", &v.Blocking) }},
		field{"yes", func(n *yaml.Node) error { return p.bool(n, "yes", &v.Yes) }},
	)...)
	if err != nil {
		return v, err
	}
	for i, f := range v.filters {
		if OfPairs(f) && !v.IsBlocking() {
			return v, p.errorf(filters[i], "%q: only pairs have that, and this view has no blocking: true", f)
		}
	}
	return v, p.checkAttributes(&v)
}

// OfPairs reports whether a filter is about a field that only pairs have.
func OfPairs(f inspect.Filter) bool {
	return Field(f) == "block" || strings.HasPrefix(Field(f), "blocking_")
}

// OfSession reports whether a filter is about a field of a session, which a session
// without locks has too.
func OfSession(f inspect.Filter) bool {
	name := Field(f)
	return strings.HasPrefix(name, "context.") || isAttribute(inspect.SessionAttributes(), name)
}

// Field returns the field of a filter, or the first word of one without a field.
func Field(f inspect.Filter) string {
	name := strings.TrimSpace(f.String())
	if i := strings.IndexAny(name, " =!<>~"); i >= 0 {
		name = name[:i]
	}
	return name
}

// checkAttributes returns an error for attributes that the rows do not have.
func (p *parser) checkAttributes(v *View) error {
	for _, name := range v.SessionAttributes {
		if !isAttribute(inspect.SessionAttributes(), name) {
			return &Error{Path: p.path, Line: v.lines["session_attributes"], Text: "session_attributes: a session has no attribute " + name}
		}
	}
	if v.IsBlocking() {
		return nil
	}
	for _, name := range v.Attributes {
		if !isAttribute(inspect.Attributes(), name) {
			return &Error{Path: p.path, Line: v.lines["attributes"], Text: fmt.Sprintf(
				"attributes: only pairs have %s: move it to blocking_attributes, or to a view with blocking: true", name)}
		}
	}
	return nil
}

func isAttribute(attributes []inspect.Attribute, name string) bool {
	return slices.ContainsFunc(attributes, func(a inspect.Attribute) bool { return a.Name == name })
}

func (p *parser) attributes(n *yaml.Node, what string, to *[]string) error {
	return p.textList(n, what, func(at *yaml.Node, text string) error {
		for name := range strings.SplitSeq(text, ",") {
			name = strings.TrimSpace(name)
			if !isAttribute(inspect.PairAttributes(), name) {
				var names []string
				for _, a := range inspect.Attributes() {
					names = append(names, a.Name)
				}
				return p.errorf(at, "%s: there is no attribute %q: there are %s; for pairs also block, and those of the session with blocking_ before them",
					what, short(name), strings.Join(names, ", "))
			}
			*to = append(*to, name)
		}
		return nil
	})
}

func (p *parser) names(n *yaml.Node, to *[]NamePattern) error {
	count := 0
	return p.textList(n, "names", func(at *yaml.Node, text string) error {
		pattern, err := ParseNamePattern(text)
		if err != nil {
			return p.errorf(at, "names: %v", err)
		}
		if count += pattern.Count(); count > maxNames {
			return p.errorf(at, "names: with it there are more than %d names", maxNames)
		}
		*to = append(*to, pattern)
		return nil
	})
}

func (p *parser) limit(n *yaml.Node, to **int) error {
	n = resolveAlias(n)
	var limit int
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&limit) != nil || limit < 0 {
		return p.errorf(n, "limit must be a number (0 for all), not %s", nodeKind(n))
	}
	*to = &limit
	return nil
}

// Outputs returns the valid output formats.
func Outputs() []string { return []string{"table", "tsv", "csv", "json"} }

func (p *parser) output(n *yaml.Node, to *string) error {
	if err := p.text(n, "output", to); err != nil {
		return err
	}
	if !slices.Contains(Outputs(), *to) {
		return p.errorf(resolveAlias(n), "output: the formats are %s, not %q", strings.Join(Outputs(), ", "), short(*to))
	}
	return nil
}
