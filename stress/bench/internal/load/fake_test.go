package load

import (
	"context"

	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// A failing is a peer whose locks fail.
type failing struct{ err error }

func (f failing) Locker(context.Context, bool) (peer.Locker, error)       { return f, nil }
func (f failing) Close() error                                            { return nil }
func (f failing) Lock(context.Context, int64) (peer.Held, error)          { return nil, f.err }
func (f failing) TryLock(ctx context.Context, k int64) (peer.Held, error) { return f.Lock(ctx, k) }
