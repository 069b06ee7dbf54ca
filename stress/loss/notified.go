package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// trialTimeout limits every measurement. It is far more than what is promised, so that slow
// reactions are measured and shown.
const trialTimeout = 2 * time.Minute

// A fault makes a holder lose its lock, and closes its socket.
type fault struct {
	what string
	// inject causes the fault for the backend of a holder. admin is a session that it may
	// use.
	inject func(ctx context.Context, server *pgserver.Server, admin *pgx.Conn, pid int32) error
	// undo undoes it.
	undo func(ctx context.Context, server *pgserver.Server) error
}

func faults() []fault {
	restart := func(ctx context.Context, s *pgserver.Server) error { return s.Restart(ctx) }
	return []fault{
		{
			what: "backend terminated",
			inject: func(ctx context.Context, _ *pgserver.Server, admin *pgx.Conn, pid int32) error {
				var sent bool
				err := admin.QueryRow(ctx, "SELECT pg_terminate_backend($1)", pid).Scan(&sent)
				if err == nil && !sent {
					err = errors.New("no such backend")
				}
				return err
			},
			undo: func(context.Context, *pgserver.Server) error { return nil },
		},
		{
			what: "server stopped (fast)",
			inject: func(ctx context.Context, s *pgserver.Server, _ *pgx.Conn, _ int32) error {
				return s.Shutdown(ctx, pgserver.Fast)
			},
			undo: restart,
		},
		{
			what:   "server killed (-9)",
			inject: func(_ context.Context, s *pgserver.Server, _ *pgx.Conn, _ int32) error { return s.Kill() },
			undo:   restart,
		},
	}
}

// untilNotified measures how long it takes until the ctx of a holder is canceled.
func (f fault) untilNotified(ctx context.Context, server *pgserver.Server, heartbeat time.Duration, trials int) ([]row, error) {
	var rows []row
	for _, d := range drivers() {
		r, err := f.untilNotifiedBy(ctx, server, d, heartbeat, trials)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (f fault) untilNotifiedBy(ctx context.Context, server *pgserver.Server, d kind, heartbeat time.Duration, trials int) (row, error) {
	r := row{Fault: f.what, Until: holderNotified, Driver: d.name, Heartbeat: heartbeat, Bound: notifiedAtOnce}
	if !d.listen {
		r.Bound = notifiedByPing
	}
	for i := range trials {
		took, err := f.once(ctx, server, d, heartbeat, int64(i))
		if err != nil {
			return row{}, err
		}
		r.Took = append(r.Took, took)
	}
	return r, nil
}

func (f fault) once(ctx context.Context, server *pgserver.Server, d kind, heartbeat time.Duration, key int64) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	h, err := hold(ctx, d.source(server.TCPConnString("postgres")), key, heartbeat)
	if err != nil {
		return 0, err
	}
	defer h.close()
	admin, err := pgx.Connect(ctx, server.ConnString("postgres"))
	if err != nil {
		return 0, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	var pid int32
	if err := admin.QueryRow(ctx, `SELECT pid FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND objid = $1::bigint::oid AND objsubid = 1`, key).Scan(&pid); err != nil {
		return 0, err
	}
	if !d.listen {
		// The result depends on the pings: strike at some moment between two of them.
		select {
		case <-time.After(phase(int(key), heartbeat/2)):
		case <-ctx.Done():
		}
	}
	began := time.Now()
	if err := f.inject(ctx, server, admin, pid); err != nil {
		return 0, err
	}
	at, err := h.loss(ctx)
	if err != nil {
		return 0, err
	}
	return at.Sub(began), f.undo(ctx, server)
}

// phase returns the i-th of many points that are spread evenly over a time, in no
// particular order.
func phase(i int, over time.Duration) time.Duration {
	const golden = 0.6180339887498949
	x := float64(i) * golden
	return time.Duration((x - float64(int(x))) * float64(over))
}
