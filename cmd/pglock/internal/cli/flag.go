package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// outputFlag is -o: a choice of formats.
type outputFlag struct {
	value   string
	choices []string
}

func (f *outputFlag) String() string { return f.value }
func (f *outputFlag) Type() string   { return "format" }
func (f *outputFlag) usage() string  { return strings.Join(f.choices, ", ") }

func (f *outputFlag) Set(s string) error {
	if !slices.Contains(f.choices, s) {
		return fmt.Errorf("the formats are %s", f.usage())
	}
	f.value = s
	return nil
}

// durationFlag is a duration with a unit and a lower limit.
type durationFlag struct {
	value time.Duration
	min   time.Duration
	what  string // error for a shorter duration
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
	if d < f.min {
		return errors.New(f.what)
	}
	f.value, f.set = d, true
	return nil
}

// codeFlag is an exit code.
type codeFlag int

func (f *codeFlag) String() string { return strconv.Itoa(int(*f)) }
func (f *codeFlag) Type() string   { return "code" }

func (f *codeFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 255 {
		return errors.New("an exit code is a number from 0 to 255")
	}
	*f = codeFlag(n)
	return nil
}
