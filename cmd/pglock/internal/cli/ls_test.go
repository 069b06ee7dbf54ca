package cli

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// mostUrgent returns what sorting everything does.
func TestMostUrgent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sessions := make([]inspect.Session, rapid.IntRange(1, 4).Draw(t, "sessions"))
		for i := range sessions {
			sessions[i] = inspect.Session{
				PID:      rapid.Int32Range(1, 3).Draw(t, "pid"),
				Duration: time.Duration(rapid.IntRange(0, 2).Draw(t, "duration")),
			}
		}
		locks := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) inspect.Lock {
			l := inspect.Lock{
				Session:  &sessions[rapid.IntRange(0, len(sessions)-1).Draw(t, "session")],
				Type:     "relation",
				Relation: rapid.SampledFrom([]string{"a", "b", "10", "9"}).Draw(t, "relation"),
				Mode:     rapid.SampledFrom([]string{"ShareLock", "ExclusiveLock"}).Draw(t, "mode"),
				Granted:  rapid.Bool().Draw(t, "granted"),
			}
			if !l.Granted {
				l.WaitDuration = time.Duration(rapid.IntRange(0, 2).Draw(t, "wait"))
			}
			return l
		}), 0, 60).Draw(t, "locks")
		n := rapid.IntRange(0, len(locks)).Draw(t, "n")

		want := make([]*inspect.Lock, len(locks))
		for i := range locks {
			want[i] = &locks[i]
		}
		slices.SortStableFunc(want, func(a, b *inspect.Lock) int {
			waiting := func(l *inspect.Lock) int {
				if l.Granted {
					return 1
				}
				return 0
			}
			return cmp.Or(
				cmp.Compare(waiting(a), waiting(b)),
				-cmp.Compare(a.WaitDuration, b.WaitDuration),
				-cmp.Compare(a.Duration, b.Duration),
				cmp.Compare(a.PID, b.PID),
				cmp.Compare(a.Target(), b.Target()),
				cmp.Compare(a.Mode, b.Mode),
			)
		})
		if got := mostUrgent(locks, n); !slices.Equal(got, want[:n]) {
			t.Fatalf("the %d most urgent of %d are not the first when all are sorted", n, len(locks))
		}
	})
}

// A key has its name even if the only session that publishes it is not shown, and every
// lock and blocker is seen.
func TestNamesOfWhatIsNotShown(t *testing.T) {
	key := pglock.Name("report")
	number := pglock.Int(key.ID())
	holder := &inspect.Session{PID: 1, Application: "pglock run report"}
	held := &inspect.Lock{Session: holder, Type: "advisory", Key: number, HasKey: true, Granted: true}
	var pairs []inspect.Pair
	for pid := range int32(3) {
		wait := &inspect.Lock{Session: &inspect.Session{PID: 2 + pid}, Type: "advisory", Key: number, HasKey: true}
		for before := range pid {
			pairs = append(pairs, inspect.Pair{Lock: wait, Blocking: &inspect.Session{PID: 2 + before}})
		}
		pairs = append(pairs, inspect.Pair{Lock: wait, Blocking: holder, Held: held, Hard: true})
	}
	var pids []int32
	for l := range eachLockOfPairs(pairs) {
		pids = append(pids, l.PID)
	}
	if want := []int32{2, 1, 3, 1, 4, 1}; !slices.Equal(pids, want) {
		t.Errorf("the locks of the pairs are of %v, want %v", pids, want)
	}
	shown := []*inspect.Lock{pairs[1].Lock}
	render.NameKeys(shown, eachLockOfPairs(pairs), slices.Values([]string{"other"}))
	if shown[0].Key != key {
		t.Errorf("the key is %v, not %v", shown[0].Key, key)
	}
	if pairs[0].Lock.Key != number {
		t.Error("a lock that is not shown has got a name")
	}
}

// A session that holds 400,000 locks, and one that holds a few.
func BenchmarkMostUrgent(b *testing.B) {
	session := &inspect.Session{PID: 1, Duration: time.Minute}
	other := &inspect.Session{PID: 2, Duration: time.Second}
	all := make([]inspect.Lock, 400_000)
	for i := range all {
		all[i] = inspect.Lock{Session: session, Type: "advisory", Mode: "ExclusiveLock", Granted: true, Key: pglock.Int(int64(i * 7919 % len(all))), HasKey: true}
		if i%10_000 == 0 {
			all[i].Session = other
		}
	}
	for _, n := range []int{25, len(all)} {
		b.Run(fmt.Sprintf("%d of %d", n, len(all)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				shown := mostUrgent(all, n)
				render.NameKeys(shown, eachLock(all), slices.Values([]string(nil)))
			}
		})
	}
}

// The names for 25 of the pairs of 800 sessions in a queue.
func BenchmarkNamesOfPairs(b *testing.B) {
	key := pglock.Int(pglock.Name("report").ID())
	sessions := make([]inspect.Session, 801)
	held := &inspect.Lock{Session: &sessions[0], Type: "advisory", Key: key, HasKey: true, Granted: true}
	sessions[0].Application = "pglock run report"
	var pairs []inspect.Pair
	for i := 1; i < len(sessions); i++ {
		wait := &inspect.Lock{Session: &sessions[i], Type: "advisory", Key: key, HasKey: true}
		for j := range i {
			p := inspect.Pair{Lock: wait, Blocking: &sessions[j]}
			if j == 0 {
				p.Hard, p.Held = true, held
			}
			pairs = append(pairs, p)
		}
	}
	b.ReportAllocs()
	b.ReportMetric(float64(len(pairs)), "pairs")
	for b.Loop() {
		render.NameKeys(slices.Collect(eachLockOfPairs(pairs[:25])), eachLockOfPairs(pairs), slices.Values([]string(nil)))
	}
}
