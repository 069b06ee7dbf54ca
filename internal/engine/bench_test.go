package engine

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
)

// yes is a Conn that replies yes to everything at once, so that only the engine is
// measured.
type yes struct{}

func (y yes) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	if meeting, _ := handshake.IsMeeting(sql); meeting {
		return handshake.MeetingReply(`{"pid": 101, "start": "now"}`, "yes"), nil
	}
	return y.QueryText(ctx, sql)
}

func (yes) Exec(context.Context, string, ...any) error { return nil }

func (yes) QueryText(_ context.Context, sql string, args ...string) (string, error) {
	switch sql {
	case batchSQL:
		return allYes[:len("101:")+len(args[1])], nil
	}
	return "101:1", nil
}

var allYes = "101:" + strings.Repeat("1", maxBatch)

func (yes) Watch(ctx context.Context) error { <-ctx.Done(); return nil }
func (yes) PID() uint32                     { return 101 }
func (yes) Close() error                    { return nil }

func benchEngine(b *testing.B) *Engine {
	e := New(Config{
		Open:     func(context.Context) (Conn, error) { return yes{}, nil },
		Sessions: 8, Slice: 750 * time.Millisecond, HandOver: 25 * time.Millisecond, Heartbeat: 10 * time.Second,
	})
	b.Cleanup(func() { e.Close() })
	b.ReportAllocs()
	return e
}

func BenchmarkUncontended(b *testing.B) {
	for _, goroutines := range []int{1, 64} {
		b.Run(strconv.Itoa(goroutines), func(b *testing.B) {
			e := benchEngine(b)
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					key := Key{ID: 1e9 + int64(g)}
					for range b.N / goroutines {
						h, err := e.Acquire(context.Background(), key, Exclusive, Wait{})
						if err != nil {
							b.Error(err)
							return
						}
						if err := h.Release(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkOneKey(b *testing.B) {
	e := benchEngine(b)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range b.N / 16 {
				h, err := e.Acquire(context.Background(), one, Exclusive, Wait{})
				if err != nil {
					b.Error(err)
					return
				}
				h.Release()
			}
		})
	}
	wg.Wait()
}
