package trace

import (
	"fmt"
	"slices"
	"strings"
)

// A Piece is one statement of a file.
type Piece struct {
	File string // the file, which differs from the script's if psql's \i included it
	Line int    // the line that it begins on, from 1

	// SQL is the statement without its semicolon, and without the comments before it.
	SQL string

	// Copy is true for COPY ... FROM stdin. Data has the lines that follow it.
	Copy bool
	Data string

	// Ignored lists the rules that a comment before, in or beside the statement silences.
	Ignored []string

	words []string // the first words outside parentheses, in lower case
}

// A SyntaxError reports a line of a file that this package does not read, because a guess
// might cut statements at the wrong place.
type SyntaxError struct {
	File string
	Line int
	Text string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text) }

// maxWords is how many words of a statement are kept.
const maxWords = 8

// A splitter cuts a file of SQL into statements, by the rules of psql (psql's manual page,
// and src/fe_utils/psqlscan.l in the source of Postgres).
type splitter struct {
	file  string
	text  string
	at    int               // the next byte
	line  int               // of the next byte
	depth int               // how many files include this one
	vars  map[string]string // psql's variables, as far as the file sets them

	pieces []Piece

	// The piece that is being read.
	begun   bool // it has more than comments and space
	start   int
	first   int // the line of start
	parens  int
	blocks  int // the depth of BEGIN ATOMIC and CASE
	words   []string
	before  string // the word immediately before, or "" if something else was
	ignored []string
	copies  bool // the words FROM STDIN were seen, in COPY
}

// split cuts the text from its beginning.
func (s *splitter) split() ([]Piece, error) {
	s.line = 1
	s.text = strings.TrimPrefix(s.text, "\ufeff")
	if i := strings.IndexByte(s.text, 0); i >= 0 {
		s.line += strings.Count(s.text[:i], "\n")
		return nil, s.errorf("a NUL byte: is this a file of SQL?")
	}
	s.reset()
	for s.at < len(s.text) {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	return s.pieces, s.end()
}

func (s *splitter) errorf(format string, args ...any) error {
	return &SyntaxError{s.file, s.line, fmt.Sprintf(format, args...)}
}

// reset begins a piece.
func (s *splitter) reset() {
	s.begun, s.parens, s.blocks, s.copies = false, 0, 0, false
	s.words, s.before, s.ignored = nil, "", nil
}

// begin marks the next byte as a part of the statement.
func (s *splitter) begin() {
	if !s.begun {
		s.begun, s.start, s.first = true, s.at, s.line
	}
}

// advance moves over n bytes.
func (s *splitter) advance(n int) {
	s.line += strings.Count(s.text[s.at:s.at+n], "\n")
	s.at += n
}

// rest returns what is left.
func (s *splitter) rest() string { return s.text[s.at:] }

func isSpace(c byte) bool { return strings.IndexByte(" \t\n\r\f\v", c) >= 0 }

func isWordStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWordPart(c byte) bool { return isWordStart(c) || isDigit(c) || c == '$' }

// next reads a token.
func (s *splitter) next() error {
	rest := s.rest()
	c := rest[0]
	switch {
	case isSpace(c):
		s.advance(1)
		return nil
	case strings.HasPrefix(rest, "--"):
		s.lineComment()
		return nil
	case strings.HasPrefix(rest, "/*"):
		s.blockComment()
		return nil
	case c == '\\':
		return s.backslash()
	case c == ';' && s.parens == 0 && s.blocks == 0:
		return s.semicolon()
	case c == ':':
		if done, err := s.substitute(); done || err != nil {
			return err
		}
	}
	s.begin()
	before := s.before
	s.before = ""
	switch {
	case c == '\'':
		s.quoted('\'', false)
	case c == '"':
		s.quoted('"', false)
	case (c == 'e' || c == 'E') && strings.HasPrefix(rest[1:], "'"):
		s.advance(1)
		s.quoted('\'', true)
	case isWordStart(c):
		s.word(before)
	case c == '$':
		s.dollar()
	case isDigit(c):
		s.advance(1)
	case strings.HasPrefix(rest, "::"):
		s.advance(2)
	case c == '(':
		s.parens++
		s.advance(1)
	case c == ')':
		s.parens = max(0, s.parens-1)
		s.advance(1)
	default:
		s.advance(1)
	}
	return nil
}

// lineComment reads a comment that ends with the line.
func (s *splitter) lineComment() {
	n := strings.IndexAny(s.rest(), "\n\r")
	if n < 0 {
		n = len(s.rest())
	}
	s.ignored = append(s.ignored, ignoredIn(s.rest()[2:n])...)
	s.advance(n)
}

// blockComment reads a comment, which may have others in it. One without an end lasts
// until the end of the file.
func (s *splitter) blockComment() {
	rest := s.rest()
	depth, i := 0, 0
	for i < len(rest) {
		switch {
		case strings.HasPrefix(rest[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(rest[i:], "*/"):
			depth--
			i += 2
		default:
			i++
		}
		if depth == 0 {
			break
		}
	}
	if depth > 0 {
		s.begin() // the server reports it
	}
	s.ignored = append(s.ignored, ignoredIn(strings.TrimSuffix(rest[2:max(i, 2)], "*/"))...)
	s.advance(i)
}

// ignoredIn returns the rules that a comment "pglock: ignore RULE, RULE" silences.
func ignoredIn(comment string) []string {
	words := strings.Fields(strings.ReplaceAll(comment, ",", " "))
	if len(words) < 3 || words[0] != "pglock:" || words[1] != "ignore" {
		return nil
	}
	return words[2:]
}

// quoted reads a string or a quoted identifier. One without an end lasts until the end of
// the file.
func (s *splitter) quoted(quote byte, escapes bool) {
	s.advance(1)
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '\\' && escapes && s.at+1 < len(s.text):
			s.advance(2)
		case c != quote:
			s.advance(1)
		case s.at+1 < len(s.text) && s.text[s.at+1] == quote:
			s.advance(2)
		default:
			s.advance(1)
			n := 0
			if escapes {
				n = continuation(s.rest())
			}
			if n == 0 {
				return
			}
			s.advance(n)
		}
	}
}

// continuation returns how far the next part of a string is that continues on another
// line (PostgreSQL manual, 4.1.2.1 "String Constants"), or 0 if there is none. Escapes
// still count in it.
func continuation(rest string) int {
	newline := false
	for i := 0; i < len(rest); {
		switch c := rest[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case isSpace(c):
			i++
		case strings.HasPrefix(rest[i:], "--"):
			n := strings.IndexAny(rest[i:], "\n\r")
			if n < 0 {
				return 0
			}
			i += n
		case c == '\'' && newline:
			return i + 1
		default:
			return 0
		}
	}
	return 0
}

// dollar reads a string in dollar quotes, a parameter, or a dollar sign.
func (s *splitter) dollar() {
	rest := s.rest()
	n := 1
	if len(rest) > 1 && isWordStart(rest[1]) {
		for n < len(rest) && (isWordStart(rest[n]) || isDigit(rest[n])) {
			n++
		}
	}
	if n >= len(rest) || rest[n] != '$' {
		s.advance(1)
		return
	}
	tag := rest[:n+1]
	end := strings.Index(rest[n+1:], tag)
	if end < 0 {
		s.advance(len(rest))
		return
	}
	s.advance(n + 1 + end + len(tag))
}

// word reads a key word or an identifier.
func (s *splitter) word(before string) {
	rest := s.rest()
	n := 1
	for n < len(rest) && isWordPart(rest[n]) {
		n++
	}
	word := strings.ToLower(rest[:n])
	s.advance(n)
	s.before = word
	if s.parens > 0 {
		return
	}
	if s.definesFunction() && before != "as" {
		switch {
		case word == "atomic" && before == "begin", word == "case" && s.blocks > 0:
			s.blocks++
		case word == "end" && s.blocks > 0:
			s.blocks--
		}
	}
	if len(s.words) < maxWords {
		s.words = append(s.words, word)
	}
	if s.words[0] == "copy" && word == "stdin" && before == "from" {
		s.copies = true
	}
}

// definesFunction reports whether the piece creates a function or a procedure.
func (s *splitter) definesFunction() bool {
	w := s.words
	if len(w) >= 3 && w[0] == "create" && w[1] == "or" && w[2] == "replace" {
		w = w[2:]
	}
	return len(w) >= 2 && (w[0] == "create" || w[0] == "replace") && (w[1] == "function" || w[1] == "procedure")
}

// semicolon ends the piece.
func (s *splitter) semicolon() error {
	piece, begun := s.piece()
	copies := s.copies
	s.advance(1)
	if !begun {
		return nil
	}
	tail := s.rest()
	if n := strings.IndexByte(tail, '\n'); n >= 0 {
		tail = tail[:n]
	}
	if comment, ok := strings.CutPrefix(strings.TrimSpace(tail), "--"); ok {
		piece.Ignored = append(piece.Ignored, ignoredIn(comment)...)
		s.advance(len(tail))
	} else if copies && strings.TrimSpace(tail) != "" {
		return s.errorf("COPY with something behind its semicolon: put its data on the next line")
	}
	if copies { // the data begin on the next line
		n := strings.IndexByte(s.rest(), '\n') + 1
		if n == 0 {
			n = len(s.rest())
		}
		s.advance(n)
	}
	return s.add(piece, copies)
}

// piece returns the piece up to here.
func (s *splitter) piece() (p Piece, begun bool) {
	if !s.begun {
		return Piece{}, false
	}
	return Piece{
		File: s.file, Line: s.first, SQL: strings.TrimSpace(s.text[s.start:s.at]),
		Ignored: s.ignored, words: s.words,
	}, true
}

// end adds what is left at the end of the file, as psql sends it.
func (s *splitter) end() error {
	p, begun := s.piece()
	if !begun {
		return nil
	}
	return s.add(p, s.copies)
}

// add adds a piece, with the data of a COPY, and begins the next one.
func (s *splitter) add(p Piece, copies bool) error {
	if w := p.words; slices.Contains(w, "standard_conforming_strings") && (w[0] == "set" || w[0] == "reset" || w[0] == "alter") && !conforming(p.SQL) {
		return &SyntaxError{s.file, p.Line, "standard_conforming_strings changes where strings end: only on is supported"}
	}
	if copies {
		p.Copy = true
		for {
			line, _, found := strings.Cut(s.rest(), "\n")
			s.advance(min(len(line)+1, len(s.rest())))
			if strings.TrimSuffix(line, "\r") == `\.` || !found && line == "" {
				break
			}
			p.Data += line + "\n"
			if !found {
				break
			}
		}
	}
	s.pieces = append(s.pieces, p)
	s.reset()
	return nil
}

// conforming reports whether a SET turns standard_conforming_strings on.
func conforming(sql string) bool {
	words := strings.Fields(strings.NewReplacer("=", " ", "'", " ", ";", " ").Replace(strings.ToLower(sql)))
	return len(words) > 0 && slices.Contains([]string{"on", "true", "yes", "1", "default", "standard_conforming_strings"}, words[len(words)-1])
}
