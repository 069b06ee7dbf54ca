package prioritize_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
)

// BenchmarkClear measures the time from the end of a blocker's grace until the
// blocked statement has finished, on an idle server. The blocker is idle in a
// transaction and terminated, or runs a statement and is canceled.
func BenchmarkClear(b *testing.B) {
	const grace = 300 * time.Millisecond
	for _, bench := range []struct {
		name   string
		policy prioritize.RunOption
		block  func(*actor)
	}{
		{"terminate", prioritize.Terminate(), func(a *actor) { a.do("BEGIN", "SELECT FROM t") }},
		{"cancel", prioritize.Cancel(), func(a *actor) { a.start("SELECT pg_sleep(1000) FROM t LIMIT 1") }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := newScene(b)
			me := s.session("me")
			var times []float64
			for b.Loop() {
				b.StopTimer()
				blocker := s.session("blocker")
				bench.block(blocker)
				b.StartTimer()
				err := prioritize.RunOn(b.Context(), pgxlock.ConnString(s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
					began := time.Now()
					_, err := me.conn.Exec(ctx, "BEGIN; LOCK TABLE t; ROLLBACK")
					times = append(times, float64(time.Since(began)-grace)/float64(time.Millisecond))
					return err
				}, prioritize.After(grace), bench.policy, prioritize.Allow(inspect.Superusers))
				if err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(times)
			b.ReportMetric(times[len(times)/2], "ms-median")
			b.ReportMetric(times[len(times)-1], "ms-max")
		})
	}
}

// BenchmarkSlowAnswers measures the time from the end of the grace of 1 s until the
// blocked statement has finished, if the server answers the watcher slowly: once,
// just before the wait begins, or always.
func BenchmarkSlowAnswers(b *testing.B) {
	const grace = time.Second
	for _, bench := range []struct {
		name     string
		one, all time.Duration
	}{
		{"none", 0, 0},
		{"one-50ms", 50 * time.Millisecond, 0},
		{"one-500ms", 500 * time.Millisecond, 0},
		{"one-3s", 3 * time.Second, 0},
		{"all-50ms", 0, 50 * time.Millisecond},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := newScene(b)
			me := s.session("me")
			var times []float64
			for b.Loop() {
				blocker := s.session("blocker").do("BEGIN", "SELECT FROM t")
				asked := make(chan struct{}, 1)
				var armed atomic.Bool
				slow := func() time.Duration {
					if !armed.CompareAndSwap(true, false) {
						return bench.all
					}
					asked <- struct{}{}
					return max(bench.one, bench.all)
				}
				err := prioritize.RunOn(b.Context(), slowSource{pgxlock.ConnString(s.dsn), slow}, pgxlock.Conn(me.conn), func(ctx context.Context) error {
					time.Sleep(time.Second)
					armed.Store(true)
					<-asked
					began := time.Now()
					_, err := me.conn.Exec(ctx, "BEGIN; LOCK TABLE t; ROLLBACK")
					times = append(times, float64(time.Since(began)-grace)/float64(time.Millisecond))
					return err
				}, prioritize.After(grace), prioritize.Terminate())
				if err != nil {
					b.Fatal(err)
				}
				blocker.wantAlive(false)
			}
			slices.Sort(times)
			b.ReportMetric(times[len(times)/2], "ms-median")
			b.ReportMetric(times[len(times)-1], "ms-max")
		})
	}
}

func (s slowSession) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	rows, err := s.Session.Query(ctx, sql, args...)
	time.Sleep(s.slow())
	return rows, err
}
