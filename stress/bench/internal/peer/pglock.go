package peer

import (
	"context"
	"errors"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

type pglockPeer struct{ locker *pglock.Locker }

func oneSession() pglock.LockerOption { return pglock.Sessions(1) }

func openPglock(opts ...func() pglock.LockerOption) func(context.Context, Addresses) (Peer, error) {
	return func(_ context.Context, at Addresses) (Peer, error) {
		var options []pglock.LockerOption
		for _, o := range opts {
			options = append(options, o())
		}
		locker, err := pglock.New(pgxlock.ConnString(at.Postgres), options...)
		if err != nil {
			return nil, err
		}
		return pglockPeer{locker}, nil
	}
}

func (p pglockPeer) Locker(context.Context, bool) (Locker, error) { return p, nil }
func (p pglockPeer) Close() error                                 { return p.locker.Close() }

// Stats returns the statistics of the Locker, with its number of sessions.
func (p pglockPeer) Stats() pglock.Stats { return p.locker.Stats() }

func (p pglockPeer) Lock(ctx context.Context, key int64) (Held, error) {
	return held(p.locker.Lock(ctx, pglock.Int(key)))
}

func (p pglockPeer) LockShared(ctx context.Context, key int64) (Held, error) {
	return held(p.locker.Lock(ctx, pglock.Int(key), pglock.Shared()))
}

func (p pglockPeer) TryLock(ctx context.Context, key int64) (Held, error) {
	h, err := held(p.locker.TryLock(ctx, pglock.Int(key)))
	if errors.Is(err, pglock.ErrNotAcquired) {
		return nil, nil
	}
	return h, err
}

// held keeps a nil *Lock out of the interface.
func held(lock *pglock.Lock, err error) (Held, error) {
	if err != nil {
		return nil, err
	}
	return lock, nil
}
