package peer

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

var errNotHeld = errors.New("peer: unlock: the lock was not held")

// A pgxPeer does what a program does without a library: it keeps a connection of the
// pool for each lock.
type pgxPeer struct{ pool *pgxpool.Pool }

func openPgx(ctx context.Context, at Addresses) (Peer, error) {
	config, err := pgxpool.ParseConfig(at.Postgres)
	if err != nil {
		return nil, err
	}
	config.MaxConns, config.MinConns = connections, connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// Open all connections before measuring.
	var warm []*pgxpool.Conn
	for range connections {
		c, e := pool.Acquire(ctx)
		if e != nil {
			err = e
			break
		}
		warm = append(warm, c)
	}
	for _, c := range warm {
		c.Release()
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return pgxPeer{pool}, nil
}

func (p pgxPeer) Locker(context.Context, bool) (Locker, error) { return p, nil }

func (p pgxPeer) Close() error {
	p.pool.Close()
	return nil
}

type pgxHeld struct {
	conn   *pgxpool.Conn
	key    int64
	unlock string
}

func (p pgxPeer) Lock(ctx context.Context, key int64) (Held, error) {
	return p.lock(ctx, key, "SELECT pg_advisory_lock($1)", "SELECT pg_advisory_unlock($1)")
}

func (p pgxPeer) LockShared(ctx context.Context, key int64) (Held, error) {
	return p.lock(ctx, key, "SELECT pg_advisory_lock_shared($1)", "SELECT pg_advisory_unlock_shared($1)")
}

func (p pgxPeer) lock(ctx context.Context, key int64, lock, unlock string) (Held, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, lock, key); err != nil {
		conn.Release()
		return nil, err
	}
	return &pgxHeld{conn, key, unlock}, nil
}

func (p pgxPeer) TryLock(ctx context.Context, key int64) (Held, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var ok bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&ok); err != nil || !ok {
		conn.Release()
		return nil, err
	}
	return &pgxHeld{conn, key, "SELECT pg_advisory_unlock($1)"}, nil
}

func (h *pgxHeld) Unlock() error {
	defer h.conn.Release()
	var ok bool
	if err := h.conn.QueryRow(context.Background(), h.unlock, h.key).Scan(&ok); err != nil {
		return err
	}
	if !ok {
		return errNotHeld
	}
	return nil
}
