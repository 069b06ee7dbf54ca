package trace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// A Format is who writes a file, and who runs it.
type Format string

// The formats.
const (
	// Plain is a file for psql, or for a runner that sends it as it is.
	Plain Format = "plain"

	// Goose is a file of github.com/pressly/goose: only what is below "-- +goose Up" is
	// read.
	Goose Format = "goose"

	// GolangMigrate is a file of github.com/golang-migrate/migrate, which sends it as one
	// message: one transaction, unless it is a single statement.
	GolangMigrate Format = "golang-migrate"

	// Flyway is a file of Flyway, which runs it in a transaction, unless no statement
	// can run in one.
	Flyway Format = "flyway"

	// Django is the output of Django's sqlmigrate, which has BEGIN and COMMIT in it.
	Django Format = "django"
)

// Formats returns all formats.
func Formats() []Format { return []Format{Plain, Goose, GolangMigrate, Flyway, Django} }

// A Wrap is how the runner of a file uses transactions, besides BEGIN and COMMIT in the
// file.
type Wrap string

// The ways to wrap.
const (
	WrapFile      Wrap = "file"      // the file is one transaction
	WrapStatement Wrap = "statement" // each statement is a transaction
	WrapNone      Wrap = "none"      // each statement is sent alone, as psql does
)

// Wraps returns all ways to wrap.
func Wraps() []Wrap { return []Wrap{WrapFile, WrapStatement, WrapNone} }

// A Script is a file, cut into statements.
type Script struct {
	Name   string
	Format Format
	Wrap   Wrap
	Pieces []Piece

	// Notes lists what a reader must know, such as operations that the file only
	// describes.
	Notes []string
}

// A ParseOption changes what [Parse] does.
type ParseOption func(*parsing)

type parsing struct {
	format Format
	wrap   Wrap
}

// As sets the format of the file. Without it, or with "", the name and the text of the
// file tell.
func As(f Format) ParseOption { return func(p *parsing) { p.format = f } }

// Wrapped sets how the runner wraps the file. Without it, or with "", the format tells: a
// plain file is one transaction, unless it has BEGIN or COMMIT.
func Wrapped(w Wrap) ParseOption { return func(p *parsing) { p.wrap = w } }

// Read reads a file and parses it.
func Read(name string, options ...ParseOption) (*Script, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	return Parse(name, string(text), options...)
}

// Parse cuts the text of a file into statements. name tells the format, and where files
// are that it includes. The error is a *SyntaxError for what this package does not
// support: it never guesses where a statement ends. It does not parse statements, which
// only the server understands.
func Parse(name, text string, options ...ParseOption) (*Script, error) {
	p := parsing{}
	for _, o := range options {
		o(&p)
	}
	s := &Script{Name: name, Format: p.format, Wrap: p.wrap}
	if s.Format == "" {
		s.Format = formatOf(name, text)
	}
	part, defaultWrap, err := s.Format.read(name, text)
	if err != nil {
		return nil, err
	}
	pieces, err := (&splitter{file: name, text: part, vars: map[string]string{}}).split()
	if err != nil {
		return nil, err
	}
	s.Pieces = pieces
	if s.Wrap == "" {
		s.Wrap = s.wrap(defaultWrap)
	}
	if s.Format == Django {
		s.Notes = undescribed(text)
	}
	return s, nil
}

// maxDepth is how deep included files may be nested.
const maxDepth = 16

// includeFile reads a file for psql's \i and \ir.
func includeFile(s *splitter, name string, relative bool) ([]Piece, error) {
	if relative && !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(s.file), name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, s.errorf("%v", err)
	}
	if s.depth == maxDepth {
		return nil, s.errorf("files include each other")
	}
	return (&splitter{file: name, text: string(text), vars: s.vars, depth: s.depth + 1}).split()
}

// The marks of formats.
var (
	flywayName        = lazyregexp.New(`^[VRBU][0-9._]*__.*\.sql$`)
	golangMigrateName = lazyregexp.New(`^[0-9]+_.*\.(up|down)\.sql$`)
	djangoHead        = lazyregexp.New(`\A(BEGIN;\r?\n)?--\r?\n-- .*\r?\n--\r?\n`)
	gooseMark         = lazyregexp.New(`^--\s*\+goose\s+(.*?)\s*$`)
	otherMark         = lazyregexp.New(`(?im)^\s*(--\s*migrate:(up|down)\b|--\s*\+migrate\s+(up|down)\b|---- create above / drop below ----)`)
)

// formatOf returns the format of a file.
func formatOf(name, text string) Format {
	base := filepath.Base(name)
	for line := range strings.Lines(text) {
		if gooseMark().MatchString(strings.TrimSpace(line)) {
			return Goose
		}
	}
	switch {
	case flywayName().MatchString(base):
		return Flyway
	case golangMigrateName().MatchString(base):
		return GolangMigrate
	case djangoHead().MatchString(text):
		return Django
	}
	return Plain
}

// read returns the part of the text that the runner runs forward, with other lines blank
// so that lines keep their numbers, and how the runner wraps it; "" if that depends on
// the statements.
func (f Format) read(name, text string) (part string, wrap Wrap, err error) {
	switch f {
	case Goose:
		return upOfGoose(name, text)
	case Flyway:
		if i := strings.Index(text, "${"); i >= 0 {
			return "", "", lineError(name, text, i, "a placeholder of Flyway: write its value into the file")
		}
	case Django:
		return text, WrapNone, nil
	case Plain:
		if at := otherMark().FindStringIndex(text); at != nil {
			return "", "", lineError(name, text, at[0], "a mark of another migration tool, whose files have two directions: give only the forward part")
		}
	}
	return text, "", nil
}

func lineError(name, text string, at int, problem string) error {
	return &SyntaxError{name, 1 + strings.Count(text[:at], "\n"), problem}
}

// upOfGoose returns the part of a file of goose that migrates up.
func upOfGoose(name, text string) (string, Wrap, error) {
	var b strings.Builder
	wrap, up := WrapFile, false
	number := 0
	for line := range strings.Lines(text) {
		number++
		if m := gooseMark().FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			switch strings.ToLower(m[1]) {
			case "up":
				up = true
			case "down":
				up = false
			case "no transaction":
				wrap = WrapNone
			case "statementbegin", "statementend", "envsub off":
			default:
				return "", "", &SyntaxError{name, number, "goose's annotation " + m[1] + " is not supported"}
			}
		}
		if up {
			b.WriteString(line)
		} else {
			b.WriteString("\n")
		}
	}
	return b.String(), wrap, nil
}

// wrap returns how the runner wraps the file, which depends on its statements.
func (s *Script) wrap(byFormat Wrap) Wrap {
	controlled := slices.ContainsFunc(s.Pieces, func(p Piece) bool { return p.control() != "" })
	switch {
	case byFormat != "":
		return byFormat
	case s.Format == GolangMigrate && len(s.Pieces) == 1, s.Format != Flyway && controlled:
		return WrapNone
	}
	return WrapFile
}

// undescribed returns the operations that Django's sqlmigrate could not write as SQL.
func undescribed(text string) []string {
	var notes []string
	description := ""
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "-- ")
		switch {
		case !ok:
		case strings.HasPrefix(comment, "THIS OPERATION CANNOT BE WRITTEN AS SQL"):
			notes = append(notes, "not in the file, because Django cannot write it as SQL: "+description)
		default:
			description = comment
		}
	}
	return notes
}

// control returns what a piece does to the transaction: "begin", "commit", "rollback",
// "savepoint", "prepare", or "" if it is no such statement.
func (p Piece) control() string {
	w := p.words
	if len(w) == 0 {
		return ""
	}
	has := func(word string) bool { return slices.Contains(w, word) }
	switch w[0] {
	case "begin":
		return "begin"
	case "start":
		if has("transaction") {
			return "begin"
		}
	case "commit", "end":
		if has("prepared") {
			return ""
		}
		return "commit"
	case "rollback", "abort":
		switch {
		case has("prepared"):
			return ""
		case has("to"):
			return "savepoint"
		}
		return "rollback"
	case "savepoint", "release":
		return "savepoint"
	case "prepare":
		if len(w) > 1 && w[1] == "transaction" {
			return "prepare"
		}
	}
	return ""
}
