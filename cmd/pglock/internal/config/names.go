package config

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// A NamePattern stands for the names of advisory locks: its text, with each of its groups
// replaced by each of its alternatives. A group is a range of numbers, {1..500}, or a list,
// {eu,us}. In a range that begins with a zero, as {01..12}, the numbers have the same width. Outside
// of a group, a backslash makes the character after it part of the name.
type NamePattern struct {
	text  string
	parts []namePart
}

// A namePart is text that is followed by one of several alternatives.
type namePart struct {
	text  string
	count int
	at    func(int) string // an alternative
}

// maxNames limits the names of a config file. Each is hashed to find those of the locks that
// are shown.
const maxNames = 100_000

// ParseNamePattern parses a pattern.
func ParseNamePattern(text string) (NamePattern, error) {
	p := NamePattern{text: text}
	var literal strings.Builder
	for rest := text; rest != ""; {
		i := strings.IndexAny(rest, `\{}`)
		if i < 0 {
			i = len(rest)
		}
		literal.WriteString(rest[:i])
		if rest = rest[i:]; rest == "" {
			break
		}
		switch {
		case rest[0] == '\\' && len(rest) > 1:
			literal.WriteByte(rest[1])
			rest = rest[2:]
		case rest[0] == '\\':
			return p, errors.New(`a backslash ends it: write \\ for a backslash`)
		case rest[0] == '}':
			return p, errors.New(`a } closes nothing: write \} for a brace of the name`)
		default:
			group, after, found := strings.Cut(rest[1:], "}")
			part, err := parseGroup(group)
			switch {
			case !found:
				return p, errors.New(`a { is not closed: write \{ for a brace of the name`)
			case err != nil:
				return p, err
			}
			part.text = literal.String()
			literal.Reset()
			p.parts, rest = append(p.parts, part), after
			if n := p.Count(); n > maxNames {
				return p, fmt.Errorf("it stands for more than %d names", maxNames)
			}
		}
	}
	p.parts = append(p.parts, namePart{literal.String(), 1, func(int) string { return "" }})
	return p, nil
}

// parseGroup parses what is between the braces of a group.
func parseGroup(group string) (namePart, error) {
	if first, last, isRange := strings.Cut(group, ".."); isRange {
		from, err1 := strconv.ParseInt(first, 10, 64)
		to, err2 := strconv.ParseInt(last, 10, 64)
		switch {
		case err1 != nil || err2 != nil:
			return namePart{}, fmt.Errorf("{%s} is not a range of numbers, such as {1..500}", group)
		case from > to:
			return namePart{}, fmt.Errorf("{%s}: the first number must not be greater than the last", group)
		case uint64(to)-uint64(from) >= maxNames:
			return namePart{}, fmt.Errorf("{%s} stands for more than %d names", group, maxNames)
		}
		width := 0
		if len(first) > 1 && strings.HasPrefix(strings.TrimPrefix(first, "-"), "0") {
			width = len(first)
		}
		return namePart{"", int(to-from) + 1, func(i int) string { return fmt.Sprintf("%0*d", width, from+int64(i)) }}, nil
	}
	words := strings.Split(group, ",")
	if len(words) < 2 {
		return namePart{}, fmt.Errorf(`{%s} is neither a range, such as {1..500}, nor a list, such as {eu,us}: write \{ for a brace of the name`, group)
	}
	return namePart{"", len(words), func(i int) string { return words[i] }}, nil
}

// String returns the text of the pattern.
func (p NamePattern) String() string { return p.text }

// Count returns for how many names the pattern stands, or more than the limit for more.
func (p NamePattern) Count() int {
	n := 1
	for _, part := range p.parts {
		if n *= part.count; n > maxNames {
			break
		}
	}
	return n
}

// Names returns the names that the pattern stands for.
func (p NamePattern) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		chosen := make([]int, len(p.parts))
		for {
			var name strings.Builder
			for i, part := range p.parts {
				name.WriteString(part.text)
				name.WriteString(part.at(chosen[i]))
			}
			if !yield(name.String()) {
				return
			}
			i := len(chosen) - 1
			for ; i >= 0; i-- {
				if chosen[i]++; chosen[i] < p.parts[i].count {
					break
				}
				chosen[i] = 0
			}
			if i < 0 {
				return
			}
		}
	}
}

// LockNames returns the names of advisory locks that the file lists.
func (c *Config) LockNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, p := range c.Names {
			for name := range p.Names() {
				if !yield(name) {
					return
				}
			}
		}
	}
}
