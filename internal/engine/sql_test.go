package engine

import (
	"slices"
	"strings"
	"testing"
)

// Every letter in use has its statement, and there are no others.
func TestStatementsByLetter(t *testing.T) {
	var one, wait []string
	for _, pair := range []bool{false, true} {
		for _, mode := range []Mode{Exclusive, Shared} {
			key := Key{Pair: pair}
			one = append(one, letter(opTry, key, mode), letter(opUnlock, key, mode))
			wait = append(wait, letter(opWait, key, mode))
			if got := oneSQL[letter(opTry, key, mode)]; strings.Contains(got, "_shared(") != (mode == Shared) ||
				strings.Contains(got, ">> 32") != pair || !strings.Contains(got, "pg_try_advisory_lock") {
				t.Errorf("pair %v, mode %v: acquired by %s", pair, mode, got)
			}
			if got := oneSQL[letter(opUnlock, key, mode)]; strings.Contains(got, "_shared(") != (mode == Shared) ||
				strings.Contains(got, ">> 32") != pair || !strings.Contains(got, "pg_advisory_unlock") {
				t.Errorf("pair %v, mode %v: released by %s", pair, mode, got)
			}
			if got := waitSQL[letter(opWait, key, mode)]; strings.Contains(got, "_shared(") != (mode == Shared) ||
				strings.Contains(got, ">> 32") != pair || !strings.Contains(got, "pg_catalog.pg_advisory_lock") {
				t.Errorf("pair %v, mode %v: waited for by %s", pair, mode, got)
			}
		}
		one = append(one, letter(opProbe, Key{Pair: pair}, Shared))
	}
	one = append(one, letter(opConfirm, Key{}, Exclusive))
	for _, test := range []struct {
		statements map[string]string
		letters    []string
	}{{oneSQL, one}, {waitSQL, wait}} {
		if len(test.statements) != len(test.letters) {
			t.Errorf("%d statements for %d letters", len(test.statements), len(test.letters))
		}
		for letter, statement := range test.statements {
			if !slices.Contains(test.letters, letter) || !strings.HasPrefix(statement, "SELECT") ||
				strings.Contains(statement, "--") || strings.Contains(statement, ";") {
				t.Errorf("%q: %s", letter, statement)
			}
		}
	}
}
