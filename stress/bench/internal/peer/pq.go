package peer

import (
	"context"
	"database/sql"
	"errors"

	_ "github.com/lib/pq" // the driver "postgres"
)

// A pqPeer does the same with database/sql.
type pqPeer struct{ db *sql.DB }

func openPQ(ctx context.Context, at Addresses) (Peer, error) {
	db, err := sql.Open("postgres", at.Postgres+" binary_parameters=yes")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	var warm []*sql.Conn
	for range connections {
		c, e := db.Conn(ctx)
		if e != nil {
			err = e
			break
		}
		warm = append(warm, c)
	}
	for _, c := range warm {
		err = errors.Join(err, c.Close()) // returns it to the pool
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return pqPeer{db}, nil
}

func (p pqPeer) Locker(context.Context, bool) (Locker, error) { return p, nil }
func (p pqPeer) Close() error                                 { return p.db.Close() }

type pqHeld struct {
	conn   *sql.Conn
	key    int64
	unlock string
}

func (p pqPeer) Lock(ctx context.Context, key int64) (Held, error) {
	return p.lock(ctx, key, "SELECT pg_advisory_lock($1)", "SELECT pg_advisory_unlock($1)")
}

func (p pqPeer) LockShared(ctx context.Context, key int64) (Held, error) {
	return p.lock(ctx, key, "SELECT pg_advisory_lock_shared($1)", "SELECT pg_advisory_unlock_shared($1)")
}

func (p pqPeer) lock(ctx context.Context, key int64, lock, unlock string) (Held, error) {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, lock, key); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &pqHeld{conn, key, unlock}, nil
}

func (p pqPeer) TryLock(ctx context.Context, key int64) (Held, error) {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	var ok bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&ok); err != nil || !ok {
		return nil, errors.Join(err, conn.Close())
	}
	return &pqHeld{conn, key, "SELECT pg_advisory_unlock($1)"}, nil
}

func (h *pqHeld) Unlock() error {
	var ok bool
	err := h.conn.QueryRowContext(context.Background(), h.unlock, h.key).Scan(&ok)
	if err == nil && !ok {
		err = errNotHeld
	}
	return errors.Join(err, h.conn.Close())
}
