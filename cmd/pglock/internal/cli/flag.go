package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// outputFlag is -o: a choice of formats.
type outputFlag struct {
	value   string
	choices []string
}

func (f *outputFlag) String() string  { return f.value }
func (f *outputFlag) Type() string    { return "format" }
func (f *outputFlag) usage() string   { return strings.Join(f.choices, ", ") }
func (f *outputFlag) names() []string { return f.choices }

func (f *outputFlag) Set(s string) error {
	if !slices.Contains(f.choices, s) {
		return fmt.Errorf("the formats are %s", f.usage())
	}
	f.value = s
	return nil
}

// durationFlag is a duration with a unit and limits.
type durationFlag struct {
	value time.Duration
	min   time.Duration
	max   time.Duration // 0 for no limit
	what  string        // error for a shorter or longer duration
	set   bool
}

func (f *durationFlag) String() string {
	if f.value == 0 && !f.set {
		return ""
	}
	return f.value.String()
}

func (f *durationFlag) Type() string { return "duration" }

func (f *durationFlag) Set(s string) error {
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return errors.New("a duration needs a unit, such as 500ms, 30s, 5m or 1h30m")
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("not a duration; write 500ms, 30s, 5m or 1h30m")
	}
	if d < f.min || f.max > 0 && d > f.max {
		return errors.New(f.what)
	}
	f.value, f.set = d, true
	return nil
}

// filterFlag is -f.
type filterFlag []inspect.Filter

func (f *filterFlag) Type() string { return "filter" }

func (f *filterFlag) String() string {
	var texts []string
	for _, filter := range *f {
		texts = append(texts, filter.String())
	}
	return strings.Join(texts, " and ")
}

func (f *filterFlag) Set(s string) error {
	filter, err := inspect.ParseFilter(s)
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "inspect: ")
		return errors.New(strings.TrimPrefix(text, fmt.Sprintf("the filter %q: ", filter)))
	}
	*f = append(*f, filter)
	return nil
}

// listFlag is a flag that may be repeated.
type listFlag []string

func (f *listFlag) Type() string   { return "list" }
func (f *listFlag) String() string { return strings.Join(*f, ", ") }

func (f *listFlag) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("must not be empty")
	}
	*f = append(*f, s)
	return nil
}

// kindFlag is --allow: kinds of sessions, of the choices of a verb.
type kindFlag struct{ choices, value []inspect.Class }

func (f *kindFlag) Type() string    { return "KIND" }
func (f *kindFlag) String() string  { return strings.Join(stringsOf(f.value), ",") }
func (f *kindFlag) names() []string { return stringsOf(f.choices) }
func (f *kindFlag) usage() string   { return strings.Join(f.names(), ", ") }

func (f *kindFlag) Set(s string) error {
	for kind := range strings.SplitSeq(s, ",") {
		kind = strings.TrimSpace(kind)
		if !slices.Contains(f.choices, inspect.Class(kind)) {
			return fmt.Errorf("the kinds are %s", f.usage())
		}
		f.value = append(f.value, inspect.Class(kind))
	}
	return nil
}

func stringsOf(kinds []inspect.Class) []string {
	var texts []string
	for _, kind := range kinds {
		texts = append(texts, string(kind))
	}
	return texts
}

// keyFlag is --key: the number of a lock, or two with a comma.
type keyFlag struct {
	key pglock.Key
	set bool
}

func (f *keyFlag) Type() string { return "N|A,B" }

func (f *keyFlag) String() string {
	if !f.set {
		return ""
	}
	return keyText(f.key)
}

func (f *keyFlag) Set(s string) error {
	first, second, isPair := strings.Cut(s, ",")
	if isPair {
		class, err1 := strconv.ParseInt(strings.TrimSpace(first), 10, 32)
		object, err2 := strconv.ParseInt(strings.TrimSpace(second), 10, 32)
		if err1 != nil || err2 != nil {
			return errors.New("a pair is two 32-bit numbers, such as 7,42")
		}
		f.key = pglock.Pair(int32(class), int32(object))
	} else {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil {
			return errors.New("a key is a 64-bit number, such as 42, or a pair of 32-bit numbers, such as 7,42")
		}
		f.key = pglock.Int(n)
	}
	f.set = true
	return nil
}

// keyText formats a key as --key takes it and as PGLOCK_KEY holds it.
func keyText(k pglock.Key) string {
	if class, object, ok := k.Pair(); ok {
		return fmt.Sprintf("%d,%d", class, object)
	}
	return strconv.FormatInt(k.ID(), 10)
}

// maxName is the longest name in bytes. The library has no limit, but a longer name on a
// command line is a mistake, such as the contents of a file.
const maxName = 1024

// parseName checks a name from the command line.
func parseName(name string) (pglock.Key, error) {
	switch {
	case name == "":
		return pglock.Key{}, errors.New("the name is empty")
	case len(name) > maxName:
		return pglock.Key{}, fmt.Errorf("the name is too long: %d bytes, at most %d", len(name), maxName)
	case !utf8.ValidString(name):
		return pglock.Key{}, fmt.Errorf("the name %s is not valid UTF-8", render.Quote(name))
	}
	return pglock.Name(name), nil
}
