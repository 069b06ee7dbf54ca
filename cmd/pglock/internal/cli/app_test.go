package cli

import (
	"strings"
	"testing"
)

func TestUseUnicode(t *testing.T) {
	for env, want := range map[string]bool{
		"": true, "LANG=C": false, "LANG=C.UTF-8": true, "LANG=en_US.utf8": true, "LANG=de_DE.ISO-8859-1": false,
		"LC_ALL=POSIX LANG=C.UTF-8": false, "LC_CTYPE=C.UTF-8 LANG=C": true,
	} {
		if got := (&app{env: strings.Fields(env)}).useUnicode(); got != want {
			t.Errorf("%q: %v", env, got)
		}
	}
}
