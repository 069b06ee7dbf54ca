package load

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/host"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// Every peer, on real servers: locks exclude each other, TryLock fails if the lock is
// held, and every goroutine gets its turn.
func TestPeers(t *testing.T) {
	h := &host.Host{Log: os.Stderr}
	defer func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}()
	at, err := h.Addresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for server, err := range h.Missing() {
		if os.Getenv("CI") == "true" {
			t.Errorf("CI needs %s: %v", server, err)
		}
		t.Logf("SKIPPED: peers that need %s: %v", server, err)
	}
	for _, kind := range peer.Kinds() {
		t.Run(kind.Name, func(t *testing.T) {
			if err := h.Missing()[kind.Server]; err != nil {
				t.Skipf("no %s: %v", kind.Server, err)
			}
			p, err := kind.Open(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}()
			exclusion(t, p)
			for _, plan := range []Plan{
				{Goroutines: 2, Time: 50 * time.Millisecond, Key: 100},
				{Goroutines: 3, Time: 50 * time.Millisecond, Key: 200, Keys: 1, Warm: 10 * time.Millisecond},
				{Goroutines: 3, Time: 50 * time.Millisecond, Key: 300, Keys: 50, Skew: 1.1},
			} {
				plan, r, err := runLongEnough(t, p, plan)
				if err != nil {
					t.Fatalf("%+v: %v", plan, err)
				}
				check(t, plan, r)
			}
			plan, r, err := runLongEnough(t, p, Plan{Goroutines: 3, Time: 50 * time.Millisecond, Key: 400, Keys: 1, SharedOfTen: 9})
			if (err == nil) != kind.Shares {
				t.Fatalf("shared locks: %v", err)
			}
			if err == nil {
				check(t, plan, r)
			}
		})
	}
}

// runLongEnough runs the plan and doubles its time until at least one pair was counted:
// on a busy machine, no goroutine may get its turn in a short run.
func runLongEnough(t *testing.T, p peer.Peer, plan Plan) (Plan, *Result, error) {
	t.Helper()
	for {
		r, err := Run(t.Context(), p, plan)
		if err != nil || r.Rate() > 0 || plan.Time > 30*time.Second {
			return plan, r, err
		}
		plan.Time *= 2
	}
}

// exclusion checks that a held lock excludes others, and that a free one does not.
func exclusion(t *testing.T, p peer.Peer) {
	t.Helper()
	one, err := p.Locker(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.Locker(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	held, err := one.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := other.TryLock(t.Context(), 1); h != nil || err != nil {
		t.Fatalf("TryLock of a held lock: %v, %v", h, err)
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	h, err := other.TryLock(t.Context(), 1)
	if h == nil || err != nil {
		t.Fatalf("TryLock of a free lock: %v, %v", h, err)
	}
	if err := h.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, plan Plan, r *Result) {
	t.Helper()
	var pairs uint64
	for _, n := range r.Pairs {
		pairs += n
	}
	if len(r.Pairs) != plan.Goroutines || pairs == 0 || r.Wait.N != pairs || r.Pair.N != pairs || r.Time < plan.Time {
		t.Errorf("%+v: %d pairs in %v, %d waits, %d pairs timed", plan, r.Pairs, r.Time, r.Wait.N, r.Pair.N)
	}
	if r.Rate() <= 0 || r.Fairness() < 0 || r.Fairness() > 1 {
		t.Errorf("%v pairs a second, fairness %v", r.Rate(), r.Fairness())
	}
}

func TestMergedResults(t *testing.T) {
	a := Result{Time: time.Second, Pairs: []uint64{10, 20}}
	b := Result{Time: 2 * time.Second, Pairs: []uint64{5, 25}}
	a.Wait.Add(time.Millisecond)
	b.Wait.Add(time.Minute)
	a.Merge(&b)
	if a.Rate() != 30 || a.Fairness() != 0.2 || a.Wait.Longest != time.Minute || a.Wait.N != 2 {
		t.Errorf("%+v", a)
	}
	if (&Result{Time: 1}).Fairness() != 0 || (&Result{Time: 1, Pairs: []uint64{0, 0}}).Fairness() != 0 {
		t.Error("the fairness of no pairs is not 0")
	}
}

// A locker that fails ends the run, which returns its error.
func TestAFailingPeer(t *testing.T) {
	broken := errors.New("broken")
	p := failing{broken}
	if _, err := Run(t.Context(), p, Plan{Goroutines: 3, Time: time.Minute}); !errors.Is(err, broken) {
		t.Error(err)
	}
}
