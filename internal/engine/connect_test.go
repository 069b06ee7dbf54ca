package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// If no session can be opened, all requests for a key fail.
func TestOpenFails(t *testing.T) {
	full := pgError(sqlstate.TooManyConnections)
	for name, after := range map[string]time.Duration{"at once": 0, "after a while": time.Second, "never": time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.refuse = func() (time.Duration, error) { return after, full }
				e := t.engine()
				var rs []*request
				for i := range 6 {
					rs = append(rs, t.start(e, Key{ID: int64(i / 3)}, Mode(i%2), Wait{No: i%3 == 2}))
				}
				impatient := t.start(e, one, Exclusive, Wait{For: 500 * time.Millisecond})
				<-impatient.done
				if after == 0 {
					t.wantErr(impatient.err, ErrUnavailable)
				} else if t.wantErr(impatient.err, ErrUnavailable); impatient.took != 500*time.Millisecond {
					t.Errorf("it took %v", impatient.took)
				}
				for i, r := range rs {
					<-r.done
					t.wantErr(r.err, ErrUnavailable)
					if want := min(after, openTimeout); r.took != want {
						t.Errorf("request %d failed after %v", i, r.took)
					}
					if state := sqlstate.Of(r.err); after < time.Hour && state != string(full) {
						t.Errorf("request %d: %v", i, r.err)
					}
				}
				if s := e.Stats(); s.Sessions != 0 || s.Waiting != 0 || s.Refused != 7 {
					t.Errorf("%+v", s)
				}
				t.refuse = nil
				t.must(t.acquire(e, one, Exclusive).Release())
			})
		})
	}
}

func TestNotFitForLocks(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		t.standby = true
		_, err := e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrStandby)
		t.standby, t.pooled = false, true
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrPooler)
		t.must(t.acquire(t.engine(func(c *Config) { c.AllowPooler = true }), one, Exclusive).Release())
		t.pooled = false
		for _, kind := range []string{"meet", "meet", "hello"} {
			t.once(1, kind, fault{err: pgError("XX000")})
		}
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrUnavailable)
	})
}

// If the server refuses a part of the message that sets a session up, it is sent without
// the keepalives, which not every system has, and then part by part.
func TestSetUpInParts(t *testing.T) {
	for name, test := range map[string]struct{ refused, sent []string }{
		"no keepalives": {[]string{"meet"}, []string{"meet", "meet"}},
		"another part": {
			[]string{"meet", "meet", "settings"},
			[]string{"meet", "meet", "hello", "settings", "settings", "prove"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				for _, kind := range test.refused {
					t.once(1, kind, fault{err: pgError("22023")})
				}
				t.must(t.acquire(t.engine(), one, Exclusive).Release())
				var sent []string
				for _, line := range t.lines() {
					if kind, _, isPart := strings.Cut(line, "["); isPart {
						sent = append(sent, kind)
					}
				}
				if !slices.Equal(sent, test.sent) {
					t.Errorf("sent %v, want %v", sent, test.sent)
				}
			})
		})
	}
}
