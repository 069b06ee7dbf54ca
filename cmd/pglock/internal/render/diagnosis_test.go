package render

import (
	"strings"
	"testing"

	"github.com/pglock-go/pglock/doctor"
)

func TestDiagnosis(t *testing.T) {
	findings := []doctor.Finding{
		{Check: "sees", ID: "sees", Level: doctor.OK, Text: "all"},
		{Check: "settings", ID: "a", Level: doctor.OK, Text: "a on"},
		{Check: "settings", ID: "b", Level: doctor.Warning, Text: "b is off, which is a long story to tell", Advice: []string{`GRANT x TO "two  spaces, and longer than the line";`}, Note: "as a superuser"},
		{Check: "settings", ID: "c", Level: doctor.OK, Text: "c on"},
		{Check: "now", ID: "d", Level: doctor.Problem, Text: "d", Advice: []string{"chmod 600 x", "ls"}, Note: "in a shell"},
	}
	for width, want := range map[int]string{
		0: `[✓] sees        all
[!] settings    b is off, which is a long story to tell
                  -- as a superuser
                  GRANT x TO "two  spaces, and longer than the line";
                a on; c on
[✗] now         d
                  # in a shell
                  chmod 600 x
                  ls
`,
		44: `[✓] sees        all
[!] settings    b is off, which is a long
                story to tell
                  -- as a superuser
                  GRANT x TO "two  spaces, and longer than the line";
                a on; c on
[✗] now         d
                  # in a shell
                  chmod 600 x
                  ls
`,
	} {
		var b strings.Builder
		if err := (Diagnosis{Width: width}).Write(&b, findings); err != nil || b.String() != want {
			t.Errorf("width %d: %v\n%s\nwant\n%s", width, err, b.String(), want)
		}
	}
	if got := Findings(findings); got != "1 problem, 1 warning" {
		t.Error(got)
	}
	if got := Findings(findings[:2]); got != "nothing to mend" {
		t.Error(got)
	}
}
