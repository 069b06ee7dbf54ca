package sqltext

import "testing"

func TestInline(t *testing.T) {
	for sql, want := range map[string]string{
		"":                      "",
		"SELECT 1":              "SELECT 1",
		"$1":                    "'a'",
		"SELECT $2, $1, $2":     "SELECT 'b', 'a', 'b'",
		"$10, $3, $0, $01, $":   "$10, $3, $0, $01, $",
		"$$1$2":                 "$'a''b'",
		"$99999999999999999999": "$99999999999999999999",
	} {
		if got := Inline(sql, "a", "b"); got != want {
			t.Errorf("%q: %q, not %q", sql, got, want)
		}
	}
}
