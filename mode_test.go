package pglock_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
)

func TestParseMode(t *testing.T) {
	for _, m := range pglock.Modes() {
		for _, s := range []string{
			m.String(), strings.ToLower(m.String()), " " + strings.ReplaceAll(m.String(), " ", "\t ") + "\n",
			m.PgLocks(), strings.ToUpper(m.PgLocks()),
		} {
			if got, err := pglock.ParseMode(s); got != m || err != nil {
				t.Errorf("ParseMode(%q) is %v, %v, want %v", s, got, err, m)
			}
		}
	}
	for _, s := range []string{"", "ACCESS", "ACCESSEXCLUSIVE", "SIReadLock", "EXCLUSIVE MODE", "Mode(9)"} {
		got, err := pglock.ParseMode(s)
		if got != 0 || err == nil || !strings.Contains(err.Error(), "SHARE ROW EXCLUSIVE") {
			t.Errorf("ParseMode(%q) is %v, %v, want an error that lists the modes", s, got, err)
		}
	}
}

func TestModesAreOrdered(t *testing.T) {
	if all := pglock.Modes(); !slices.IsSorted(all) || len(all) != 8 {
		t.Errorf("got %v", all)
	}
	pglock.Modes()[0] = pglock.Exclusive
	if pglock.Modes()[0] != pglock.AccessShare {
		t.Error("a caller's change affects other callers")
	}
}

func TestNoMode(t *testing.T) {
	var none pglock.Mode
	if none.String() != "" || none.PgLocks() != "" {
		t.Errorf("the zero Mode is %q, %q", none.String(), none.PgLocks())
	}
	if beyond := pglock.AccessExclusive + 1; beyond.String() != "Mode(9)" || beyond.PgLocks() != "" {
		t.Errorf("Mode 9 is %q, %q", beyond.String(), beyond.PgLocks())
	}
	for _, m := range append(pglock.Modes(), 0, 9) {
		if m.Conflicts(none) || none.Conflicts(m) || m.Conflicts(9) || pglock.Mode(9).Conflicts(m) {
			t.Errorf("%v conflicts with an invalid mode", m)
		}
	}
}

// Each conflict is listed twice in the table, as in the manual.
func TestConflictsAreMutual(t *testing.T) {
	for _, a := range pglock.Modes() {
		for _, b := range pglock.Modes() {
			if a.Conflicts(b) != b.Conflicts(a) {
				t.Errorf("%v conflicts with %v: %v, vice versa: %v", a, b, a.Conflicts(b), b.Conflicts(a))
			}
		}
	}
}

// The table in the guide matches the code.
func TestModesInTheGuide(t *testing.T) {
	guide, err := os.ReadFile("docs/tables.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range pglock.Modes() {
		var row string
		for line := range strings.Lines(string(guide)) {
			if fields := strings.Split(line, "|"); len(fields) == 11 && strings.TrimSpace(fields[1]) == m.String() {
				row = ""
				for _, field := range fields[2:10] {
					row += strings.TrimSpace(field) + "|"
				}
			}
		}
		want := ""
		for _, other := range pglock.Modes() {
			if m.Conflicts(other) {
				want += "X"
			}
			want += "|"
		}
		if row != want {
			t.Errorf("%v: the guide has %q, want %q", m, row, want)
		}
	}
}
