package peer

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

// LeaseTTL is the time to live of the leases of all peers.
const LeaseTTL = 30 * time.Second

// InstallLeases creates the tables of pglock's leases, and the table of the peer rows.
func InstallLeases(ctx context.Context, dsn string) (err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, pglock.LeaseSQL("pglock")+`
CREATE TABLE IF NOT EXISTS bench_rows (name bigint PRIMARY KEY, version bigint, data text, owner text);
CREATE SEQUENCE IF NOT EXISTS bench_rows_version OWNED BY bench_rows.version`)
	return err
}

func openLeases(ctx context.Context, at Addresses) (Peer, error) {
	if err := InstallLeases(ctx, at.Postgres); err != nil {
		return nil, err
	}
	locker, err := pglock.New(pgxlock.ConnString(at.Postgres), pglock.Leases(LeaseTTL))
	if err != nil {
		return nil, err
	}
	return pglockPeer{locker}, nil
}

// A rowsPeer takes leases as cirello.io/pglock does, with statements like its own: each take is
// a serializable transaction that gives the row a new version unless another holder has it, and
// each release one that removes the version.
type rowsPeer struct{ pool *pgxpool.Pool }

func openRows(ctx context.Context, at Addresses) (Peer, error) {
	if err := InstallLeases(ctx, at.Postgres); err != nil {
		return nil, err
	}
	p, err := openPgx(ctx, at)
	if err != nil {
		return nil, err
	}
	return rowsPeer{p.(pgxPeer).pool}, nil
}

func (p rowsPeer) Locker(context.Context, bool) (Locker, error) { return p, nil }

func (p rowsPeer) Close() error {
	p.pool.Close()
	return nil
}

// rowsPause is the time between two tries.
const rowsPause = 20 * time.Millisecond

func (p rowsPeer) Lock(ctx context.Context, key int64) (Held, error) {
	for {
		h, err := p.TryLock(ctx, key)
		if h != nil || err != nil {
			return h, err
		}
		select {
		case <-time.After(rowsPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p rowsPeer) TryLock(ctx context.Context, key int64) (Held, error) {
	var version, now int64
	if err := p.pool.QueryRow(ctx, "SELECT nextval('bench_rows_version')").Scan(&version); err != nil {
		return nil, err
	}
	err := p.serializable(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO bench_rows (name, version, data, owner) VALUES ($1, $2, '', 'bench')
			ON CONFLICT (name) DO UPDATE SET version = coalesce(bench_rows.version, $2), owner = 'bench'`, key, version); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT version FROM bench_rows WHERE name = $1 FOR UPDATE", key).Scan(&now)
	})
	if err != nil || now != version {
		return nil, err
	}
	return rowsHeld{p, key, version}, nil
}

// serializable runs a transaction, again if Postgres cannot serialize it.
func (p rowsPeer) serializable(ctx context.Context, f func(pgx.Tx) error) error {
	for {
		err := pgx.BeginTxFunc(ctx, p.pool, pgx.TxOptions{IsoLevel: pgx.Serializable}, f)
		if e := interface{ SQLState() string }(nil); errors.As(err, &e) && e.SQLState() == "40001" {
			continue
		}
		return err
	}
}

type rowsHeld struct {
	peer         rowsPeer
	key, version int64
}

func (h rowsHeld) Unlock() error {
	ctx := context.Background()
	return h.peer.serializable(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE bench_rows SET version = NULL WHERE name = $1 AND version = $2", h.key, h.version)
		if err == nil && tag.RowsAffected() != 1 {
			err = errNotHeld
		}
		return err
	})
}
