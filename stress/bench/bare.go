package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/stress/bench/internal/load"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// The lower bound for a lock: its two statements, on a connection that does nothing
// else.

// A bare is a peer that sends the two statements through pgconn, below pgx.
type bare struct {
	conn *pgconn.PgConn
	args [1][]byte
}

func openBare(ctx context.Context, dsn string) (*bare, error) {
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	for name, sql := range map[string]string{
		"lock":   "SELECT pg_try_advisory_lock($1::bigint)",
		"unlock": "SELECT pg_advisory_unlock($1::bigint)",
	} {
		if _, err := conn.Prepare(ctx, name, sql, nil); err != nil {
			return nil, errors.Join(err, conn.Close(ctx))
		}
	}
	return &bare{conn: conn}, nil
}

var errFalse = errors.New("the lock function returned false")

func (b *bare) call(ctx context.Context, name string, key int64) error {
	b.args[0] = strconv.AppendInt(b.args[0][:0], key, 10)
	result := b.conn.ExecPrepared(ctx, name, b.args[:], nil, nil)
	yes := false
	for result.NextRow() {
		yes = string(result.Values()[0]) == "t"
	}
	if _, err := result.Close(); err != nil {
		return err
	}
	if !yes {
		return errFalse
	}
	return nil
}

// timesMany measures one goroutine with one connection, and returns what as many goroutines
// as the plan has would do if none of them waited for another one.
func timesMany(ctx context.Context, dsn string, plan load.Plan) (_ []float64, err error) {
	n := plan.Goroutines
	plan.Goroutines = 1
	p, err := openBare(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	r, err := load.Run(ctx, p, plan)
	if err != nil {
		return nil, err
	}
	values := rateValues(r)
	values[0] *= float64(n)
	return values, nil
}

type bareHeld struct {
	b   *bare
	key int64
}

func (b *bare) Lock(ctx context.Context, key int64) (peer.Held, error) {
	if err := b.call(ctx, "lock", key); err != nil {
		return nil, err
	}
	return bareHeld{b, key}, nil
}

func (b *bare) TryLock(ctx context.Context, key int64) (peer.Held, error) { return b.Lock(ctx, key) }
func (b *bare) Locker(context.Context, bool) (peer.Locker, error)         { return b, nil }
func (b *bare) Close() error                                              { return b.conn.Close(context.Background()) }

func (h bareHeld) Unlock() error { return h.b.call(context.Background(), "unlock", h.key) }

// A pgxAlone is a peer that sends the two statements through pgx.
type pgxAlone struct{ conn *pgx.Conn }

type pgxAloneHeld struct {
	p   pgxAlone
	key int64
}

func (p pgxAlone) call(ctx context.Context, sql string, key int64) error {
	var yes bool
	if err := p.conn.QueryRow(ctx, sql, key).Scan(&yes); err != nil {
		return err
	}
	if !yes {
		return errFalse
	}
	return nil
}

func (p pgxAlone) Lock(ctx context.Context, key int64) (peer.Held, error) {
	if err := p.call(ctx, "SELECT pg_try_advisory_lock($1)", key); err != nil {
		return nil, err
	}
	return pgxAloneHeld{p, key}, nil
}

func (p pgxAlone) TryLock(ctx context.Context, key int64) (peer.Held, error) { return p.Lock(ctx, key) }
func (p pgxAlone) Locker(context.Context, bool) (peer.Locker, error)         { return p, nil }
func (p pgxAlone) Close() error                                              { return p.conn.Close(context.Background()) }

func (h pgxAloneHeld) Unlock() error {
	return h.p.call(context.Background(), "SELECT pg_advisory_unlock($1)", h.key)
}
