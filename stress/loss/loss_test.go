package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/stress/chaos"
)

func TestMain(m *testing.M) {
	if done, err := child(); done {
		exit(err)
	}
	pgtest.Main(m)
}

// within checks a row against a bound. The bound is a multiple of what is promised,
// because a machine may be slow; make loss shows the rest.
func (r row) within(t *testing.T, most time.Duration) {
	t.Helper()
	t.Logf("%s, %s, until %s: %v of %v", r.Fault, r.Driver, r.Until, r.Took, r.Bound.within(r.Heartbeat))
	if len(r.Took) == 0 {
		t.Errorf("%s: nothing was measured", r.Driver)
	} else if worst := r.worst(); worst > most {
		t.Errorf("%s: it took %v until %s; the promise is %v", r.Driver, worst, r.Until, r.Bound)
	}
}

// A driver that listens is notified at once; the heartbeat here is too long to be the
// reason. lib/pq notices at the next ping.
func TestTold(t *testing.T) {
	t.Parallel()
	for _, f := range faults() {
		t.Run(f.what, func(t *testing.T) {
			t.Parallel()
			server := pgtest.Own(t, pgserver.Options{TCP: true})
			for _, d := range drivers() {
				heartbeat, most := 2*time.Minute, 30*time.Second
				if !d.listen {
					heartbeat, most = time.Second, 10*time.Second
				}
				r, err := f.untilNotifiedBy(t.Context(), server, d, heartbeat, 2)
				if err != nil {
					t.Fatalf("%s: %v", d.name, err)
				}
				r.within(t, most)
			}
		})
	}
}

// The lock of a killed process is free at once, regardless of the heartbeat.
func TestProcessKilled(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	rows, err := untilFree(t.Context(), server, 2*time.Minute, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		r.within(t, 30*time.Second)
	}
}

// A cable is pulled: the holder is notified within its heartbeat, and only later does the
// server free the lock. That order is checked for each holder.
func TestCablePulled(t *testing.T) {
	t.Parallel()
	const heartbeat = time.Second
	rows, err := cut{Heartbeat: heartbeat, Trials: 1, Holders: 4}.inNamespace(t.Context())
	if errors.Is(err, errNoNamespace) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2*len(drivers()) {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		r.within(t, 5*r.Bound.within(heartbeat))
	}
}

// The same with a proxy that drops everything, for machines without network namespaces.
// The proxy's machine answers the server's keepalives, so the server's side is not
// measured.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	for i, d := range drivers() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			proxy, err := chaos.NewProxy(fmt.Sprintf("127.0.0.1:%d", server.Port()))
			if err != nil {
				t.Fatal(err)
			}
			defer proxy.Close()
			const heartbeat = time.Second
			h, err := hold(t.Context(), d.source(proxy.ConnString(server.TCPConnString("postgres"))), int64(i), heartbeat)
			if err != nil {
				t.Fatal(err)
			}
			defer h.close()
			defer proxy.Heal()
			began := time.Now()
			if err := proxy.BlackHole(); err != nil {
				t.Fatal(err)
			}
			at, err := h.loss(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			row{"black hole", holderNotified, d.name, heartbeat, notifiedByHeartbeat, []time.Duration{at.Sub(began)}}.within(t, 10*heartbeat)
		})
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	var r row
	for i := 100; i > 0; i-- {
		r.Took = append(r.Took, time.Duration(i))
	}
	if m, q, w := r.quantile(0.5), r.quantile(0.95), r.worst(); m != 50 || q != 95 || w != 100 {
		t.Errorf("%d, %d, %d", m, q, w)
	}
	r.Took = []time.Duration{3, 1, 2}
	if m, q := r.quantile(0.5), r.quantile(0.95); m != 2 || q != 3 {
		t.Errorf("%d, %d", m, q)
	}
}

func TestTableGoesBetweenItsMarkers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.md")
	if err := writeBetween(path, "loss", "new\n"); err == nil {
		t.Error("no error for a missing file")
	}
	for before, after := range map[string]string{
		"a\n<!-- loss: begin -->\nold\n<!-- loss: end -->\nz": "a\n<!-- loss: begin -->\nnew\n<!-- loss: end -->\nz",
		"a\n<!-- loss: begin -->\n<!-- loss: end -->\n":       "a\n<!-- loss: begin -->\nnew\n<!-- loss: end -->\n",
		"a\n<!-- loss: begin -->\nold\n":                      "",
		"a\n":                                                 "",
	} {
		if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
			t.Fatal(err)
		}
		err := writeBetween(path, "loss", "new\n")
		got, readErr := os.ReadFile(path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		switch {
		case after == "" && (err == nil || string(got) != before):
			t.Errorf("%q became %q, %v", before, got, err)
		case after != "" && (err != nil || string(got) != after):
			t.Errorf("%q became %q, %v", before, got, err)
		}
	}
	page, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "<!-- loss: begin -->\n") || !strings.Contains(string(page), "\n<!-- loss: end -->") {
		t.Error("docs/reliability.md has no markers for the table")
	}
}
