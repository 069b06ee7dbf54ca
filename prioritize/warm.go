package prioritize

import (
	"context"
	"time"

	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A warmer is an observer whose first signal would be slower than later ones. warmUp runs
// all of the statement that signals, or plans it, without a victim.
type warmer interface {
	warmUp(ctx context.Context, readLocks bool) error
}

func (e *sessionObserver) warmUp(ctx context.Context, readLocks bool) error {
	return signal.WarmUp(ctx, e.session, readLocks)
}

// A warmth is what the watcher's session has done of the statement that signals.
type warmth uint8

const (
	cold    warmth = iota
	planned        // planned it, which is all that it needs for a small lock table
	warm           // run every part of it
)

// warmUp runs the statement that signals without a victim, so that the first signal is as
// fast as later ones. After the first poll it only plans it. While a session is blocked it
// also reads the lock table, which takes about as long as reading the pairs, unless a
// blocker may be due before that ends.
func (w *watcher) warmUp(ctx context.Context) error {
	m, ok := w.observer.(warmer)
	if !ok || w.config.policy == policyWatch || w.passive || w.warmth == warm || ctx.Err() != nil {
		return nil
	}
	next := w.tracker.next()
	readLocks := !next.IsZero() && time.Until(next) > 3*w.pairsTime
	switch {
	case readLocks:
		w.warmth = warm
	case w.warmth == cold:
		w.warmth = planned
	default:
		return nil
	}
	queryCtx, cancel := queryContext(ctx)
	defer cancel()
	if err := m.warmUp(queryCtx, readLocks); sqlstate.Of(err) == "" {
		return err
	}
	return nil // the session is as before
}
