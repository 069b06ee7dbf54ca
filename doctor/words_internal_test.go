package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
)

// Newer versions are not refused, and what is not known of them is not computed.
func TestVersions(t *testing.T) {
	for _, test := range []struct {
		number int
		text   string
		level  Level
		want   string
		room   int64
	}{
		{110022, "11.22", Problem, "Postgres 11.22 is too old: pglock works with 12 and newer", 6400},
		{120022, "12.22 (Debian 12.22-1.pgdg12+1)", OK, "Postgres 12.22", 6400},
		{180004, "18.4", OK, "Postgres 18.4", 6400},
		{190000, "19beta1", OK, "Postgres 19beta1, expected to work: pglock was tested with 12 to 18", 0},
		{190001, "19.1", OK, "Postgres 19.1, expected to work: pglock was tested with 12 to 18", 0},
	} {
		s := &server{Version: test.number, VersionText: test.text, User: "on call", Database: "shop"}
		if f := s.versionFinding(); f.Level != test.level || f.Text != test.want+`; role "on call" in database "shop"` {
			t.Errorf("%d: %s %q, want %s %q", test.number, f.Level, f.Text, test.level, test.want)
		}
		l := lockTable{Used: 6400, PerTransaction: 64, Connections: 100}
		if room := l.room(s); room != test.room {
			t.Errorf("%d: room for %d locks, want %d", test.number, room, test.room)
		}
		// A table is full only if its size is known.
		if f := l.finding(s); f.Level == Warning != (test.room > 0) || test.room == 0 && strings.Contains(f.Text, "6400 of") {
			t.Errorf("%d: %+v", test.number, f)
		}
	}
}

// log_lock_waits is on by default from Postgres 19 on: the setting counts, not the version.
func TestLogLockWaits(t *testing.T) {
	for _, version := range []int{180000, 190000} {
		s := &server{Version: version}
		if f := (setting{Name: "log_lock_waits", Value: "on", Source: "default"}).logLockWaits(s); f.Level != OK {
			t.Errorf("%d, on: %+v", version, f)
		}
		if f := (setting{Name: "log_lock_waits", Value: "off", Source: "configuration file"}).logLockWaits(s); f.Level != Warning || len(f.Advice) != 2 {
			t.Errorf("%d, off: %+v", version, f)
		}
	}
}

// What cannot be changed with ALTER SYSTEM is not advised so.
func TestMend(t *testing.T) {
	yes, no := true, false
	s := &server{Login: `a"b`, Database: "shop"}
	for _, test := range []struct {
		setting setting
		want    string
	}{
		{setting{Source: "default"}, "ALTER SYSTEM SET x = on; SELECT pg_reload_conf();"},
		{setting{Source: "configuration file"}, "ALTER SYSTEM SET x = on; SELECT pg_reload_conf();"},
		{setting{Source: "command line"}, ""},
		{setting{Source: "client"}, ""},
		{setting{Source: "user", OfRole: &yes, OfDatabase: &no}, `ALTER ROLE "a""b" RESET x;`},
		{setting{Source: "database", OfRole: &no, OfDatabase: &yes}, `ALTER DATABASE "shop" RESET x;`},
		{setting{Source: "session", OfRole: &yes, OfDatabase: &yes}, `ALTER ROLE "a""b" IN DATABASE "shop" RESET x;`},
		{setting{Source: "global", OfRole: &no, OfDatabase: &no}, `ALTER ROLE ALL RESET x;`},
	} {
		test.setting.Name = "x"
		f := test.setting.mend(Finding{}, s, "on")
		if got := strings.Join(f.Advice, " "); got != test.want || f.Note == "" {
			t.Errorf("%+v: %q, %s", test.setting, got, f.Note)
		}
	}
}

// Clocks are apart only if the round trip does not explain it.
func TestClock(t *testing.T) {
	now := time.UnixMicro(1_800_000_000_123_456)
	for _, test := range []struct {
		server, trip time.Duration
		level        Level
	}{
		{0, 0, OK},
		{900 * time.Millisecond, 0, OK},
		{5 * time.Second, 10 * time.Millisecond, Warning},
		{-5 * time.Second, 10 * time.Millisecond, Warning},
		{5 * time.Second, 10 * time.Second, OK}, // the middle, exactly
		{time.Second, 10 * time.Second, OK},
		{20 * time.Second, 10 * time.Second, Warning},
	} {
		s := &server{Time: float64(now.Add(test.server).UnixMicro()) / 1e6}
		s.measure(now, now.Add(test.trip))
		if f := s.clockFinding(); f.Level != test.level || f.Level != OK && len(f.Advice) != 1 {
			t.Errorf("%v in a round trip of %v: %+v", test.server, test.trip, f)
		}
	}
}

func TestTLS(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, test := range []struct {
		route route
		level Level
		want  string
	}{
		{route{}, OK, "Unix socket"},
		{route{Client: text("127.0.0.1")}, OK, "TCP within the machine"},
		{route{Client: text("::1")}, OK, "TCP within the machine"},
		{route{Client: text("10.0.0.7"), TLS: text("TLSv1.3")}, OK, "TLSv1.3"},
		{route{Client: text("10.0.0.7")}, Warning, "the connection from 10.0.0.7 is not encrypted"},
		{route{Client: text("fe80::1")}, Warning, "the connection from fe80::1 is not encrypted"},
	} {
		if f := test.route.tlsFinding(false); f.Level != test.level || f.Text != test.want {
			t.Errorf("%s %q, want %s %q", f.Level, f.Text, test.level, test.want)
		}
	}
	if f := (route{}).tlsFinding(true); !strings.HasSuffix(f.Text, "between the pooler and the server") {
		t.Error(f.Text)
	}
}

func TestPoolerWithoutAnAddress(t *testing.T) {
	f := poolerFinding(handshake.Pooled, unknownMode, route{}.direct())
	if f.Level != Warning || f.Advice != nil || f.Note == "" {
		t.Errorf("%+v", f)
	}
}

func TestNearLimit(t *testing.T) {
	for _, test := range []struct {
		used, limit int64
		want        bool
	}{
		{0, 97, false},
		{88, 97, false},
		{89, 97, true},
		{0, 3, false},
		{1, 3, true},
		{900, 1000, false},
		{901, 1000, true},
		{1001, 1000, true},
	} {
		if got := nearLimit(test.used, test.limit); got != test.want {
			t.Errorf("%d of %d: %v", test.used, test.limit, got)
		}
	}
}

// Of many transactions the first are listed, and the others counted.
func TestList(t *testing.T) {
	many := make([]preparedTransaction, 12)
	findings := list("prepared", "none", time.Minute, many)
	if len(findings) != maxListed+1 || findings[maxListed].Text != "and 7 more" || findings[maxListed].Level != Warning {
		t.Errorf("%+v", findings)
	}
	if findings = list("prepared", "none", time.Minute, many[:maxListed]); len(findings) != maxListed {
		t.Errorf("%+v", findings)
	}
}

// A statement that lost its condition is not run.
func TestWithAge(t *testing.T) {
	for _, sql := range []string{"SELECT 1", "SELECT :'age', :'age'"} {
		if _, err := withAge(sql, time.Minute); err == nil {
			t.Errorf("%q is run", sql)
		}
	}
	for _, file := range []string{preparedSQL, idleSQL} {
		if sql, err := withAge(file, 90*time.Second); err != nil || !strings.Contains(sql, "'90'") {
			t.Errorf("%v\n%s", err, sql)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 40 * time.Millisecond: "40ms", time.Minute: "1m", 90 * time.Second: "1m30s", 10 * time.Minute: "10m",
		time.Hour: "1h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s",
	} {
		if got := short(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
