package cli

import (
	"encoding/json"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/termtext"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain ünïcödé 漢字":    "plain ünïcödé 漢字",
		"a\n\tb  c\r\n":       "a b c",
		"\x1b[31mred\x07\x7f": `\x1b[31mred\x07\x7f`,
		"\u009b\u0085":        `\u009b\u0085`,
		"\u202e\u200b\ufeff":  `\u202e\u200b\ufeff`,
		"\xff\xc3":            `\xff\xc3`,
		"\x00":                `\x00`,
		"\ufffd":              "\ufffd",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestJSONValue(t *testing.T) {
	for _, text := range []string{"<a & b>", "\x1b\x7f\u009b\u202e\U000e0001\n\"\\", "漢字"} {
		b, err := jsonValue(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range string(b) {
			if !termtext.Shows(r) {
				t.Errorf("%q: %q", text, b)
			}
		}
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != text {
			t.Errorf("%q: %q, %v", text, back, err)
		}
	}
	if b, _ := jsonValue(1500 * time.Millisecond); string(b) != "1.5" {
		t.Errorf("%s", b)
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                             "0ms",
		999 * time.Millisecond:        "999ms",
		1999 * time.Millisecond:       "1.9s",
		time.Minute:                   "1m00s",
		time.Hour + 5*time.Minute:     "1h05m",
		50*time.Hour + 59*time.Minute: "2d02h",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v: %s, not %s", d, got, want)
		}
	}
}

func TestApplicationName(t *testing.T) {
	for detail, want := range map[string]string{
		"":  "pglock run",
		"x": "pglock run x",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "pglock run aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"café\n":                "pglock run caf??",
		"\xff":                  "pglock run ?",
		strings.Repeat("ä", 60): "pglock run " + strings.Repeat("?", 52),
	} {
		if got := applicationName("run", detail); got != want {
			t.Errorf("%q: %q, not %q", detail, got, want)
		}
	}
}

func TestBuildInfo(t *testing.T) {
	setting := func(kv ...string) (s []debug.BuildSetting) {
		for i := 0; i < len(kv); i += 2 {
			s = append(s, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return s
	}
	for _, test := range []struct {
		info *debug.BuildInfo
		ok   bool
		want build
	}{
		{nil, false, build{Version: "unknown"}},
		{&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, true, build{Version: "devel"}},
		{&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, true, build{Version: "v1.2.3"}},
		{
			&debug.BuildInfo{Settings: setting("vcs.revision", "abc", "vcs.time", "2026-01-02T03:04:05Z", "vcs.modified", "true")},
			true,
			build{Version: "devel", Commit: "abc", Date: "2026-01-02T03:04:05Z", Modified: true},
		},
	} {
		got := buildInfo(test.info, test.ok)
		got.Go, got.Platform = "", ""
		if got != test.want {
			t.Errorf("%+v, not %+v", got, test.want)
		}
	}
}
