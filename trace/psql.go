package trace

import "strings"

// backslash reads a meta-command of psql. Those that change nothing about the statements
// are skipped.
func (s *splitter) backslash() error {
	line := s.rest()
	if n := strings.IndexByte(line, '\n'); n >= 0 {
		line = line[:n]
	}
	name := line[1:]
	if n := strings.IndexFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }); n >= 0 {
		name = name[:n]
	}
	if s.begun {
		return s.errorf(`\%s in a statement: this is psql's, and not supported`, name)
	}
	args, ok := arguments(line[1+len(name):])
	if !ok {
		return s.errorf(`\%s: these arguments are not supported`, name)
	}
	switch name {
	case "echo", "qecho", "warn", "restrict", "unrestrict":
	case "set":
		if err := s.set(args); err != nil {
			return err
		}
	case "i", "include", "ir", "include_relative":
		if len(args) != 1 {
			return s.errorf(`\%s takes the name of a file`, name)
		}
		pieces, err := includeFile(s, args[0], strings.HasSuffix(name, "r") || strings.HasSuffix(name, "relative"))
		if err != nil {
			return err
		}
		s.pieces = append(s.pieces, pieces...)
	default:
		return s.errorf(`\%s is psql's, and not supported: only \set, \echo, \i and \ir are`, name)
	}
	s.advance(len(line))
	return nil
}

// arguments returns the arguments of a meta-command: words, and strings in single quotes.
// It returns false for what psql would expand or run.
func arguments(text string) (args []string, ok bool) {
	text = strings.TrimSpace(text)
	for text != "" {
		if text[0] != '\'' {
			n := strings.IndexAny(text, " \t")
			if n < 0 {
				n = len(text)
			}
			if strings.ContainsAny(text[:n], "`:'\"\\") {
				return nil, false
			}
			args, text = append(args, text[:n]), strings.TrimSpace(text[n:])
			continue
		}
		n := strings.IndexByte(text[1:], '\'')
		if n < 0 || strings.Contains(text[1:1+n], `\`) {
			return nil, false
		}
		arg, after := text[1:1+n], text[n+2:]
		if after != "" && after[0] != ' ' && after[0] != '\t' {
			return nil, false
		}
		args, text = append(args, arg), strings.TrimSpace(after)
	}
	return args, true
}

// set sets a variable of psql.
func (s *splitter) set(args []string) error {
	if len(args) == 0 {
		return nil
	}
	switch args[0] {
	case "AUTOCOMMIT", "SINGLELINE", "ON_ERROR_ROLLBACK":
		return s.errorf(`\set %s changes how psql runs statements: not supported`, args[0])
	}
	s.vars[args[0]] = strings.Join(args[1:], "")
	return nil
}

// substitute replaces a variable of psql with its value, and reports whether there was
// one. A variable that the file did not set stays as it is, as in psql.
func (s *splitter) substitute() (bool, error) {
	rest := s.rest()
	if len(rest) < 2 || rest[1] == ':' {
		return false, nil
	}
	quote, begin := "", 1
	if rest[1] == '\'' || rest[1] == '"' {
		quote, begin = rest[1:2], 2
	}
	end := begin
	for end < len(rest) && (isWordStart(rest[end]) || isDigit(rest[end])) {
		end++
	}
	name := rest[begin:end]
	value, ok := s.vars[name]
	after := rest[end:]
	if !ok || quote != "" && !strings.HasPrefix(after, quote) {
		return false, nil
	}
	if strings.Contains(value, `\`) ||
		quote == "" && (strings.ContainsAny(value, `:;'"$()-/*`) || after != "" && strings.ContainsRune(`'"$&`, rune(after[0]))) {
		return false, s.errorf("the variable %s is not supported here: write its value into the file", name)
	}
	if quote != "" {
		value = quote + strings.ReplaceAll(value, quote, quote+quote) + quote
	}
	s.text = s.text[:s.at] + value + after[len(quote):]
	if quote != "" {
		s.begin()
		s.before = ""
		s.quoted(quote[0], false)
	}
	return true, nil
}
