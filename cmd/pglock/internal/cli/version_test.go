package cli

import (
	"runtime/debug"
	"testing"
)

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
