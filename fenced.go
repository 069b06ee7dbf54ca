package pglock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

//go:embed sql/token.sql
var tokenSQL string

// Fenced gives an advisory lock a token, which [Lock.Token] returns: a number that is greater
// than the token of each earlier holder. It is the ID of a transaction (PostgreSQL manual,
// 9.27.8 "Transaction ID and Snapshot Information Functions", txid_current) that begins after
// the lock was granted and ends before Lock returns. That costs one round trip for each lock,
// and Postgres one transaction ID. For [Locker.LockAll], one token stands for all locks.
//
// Whatever the lock protects can refuse a holder that is late, by remembering the highest token
// that it has seen. [Fence] is for leases only. Tokens grow in one server and its standbys.
// After a restore of a backup, or a failover to a standby that missed the last transactions,
// they may begin again at a smaller number, which those of leases do not.
//
// With [Leases] it has no effect, since each lease has a token. The two kinds of tokens are not
// comparable: those of leases are greater. So do not change from leases to advisory locks
// without resetting what has been remembered.
func Fenced() LockOption {
	return anyOption{"Fenced()", func(r *request) error {
		r.fenced, r.began = true, time.Now()
		return nil
	}}
}

// A fencedLock is an advisory lock, or several, with a token.
type fencedLock struct {
	held
	token int64
}

func (h fencedLock) Token() int64 { return h.token }

// withToken returns h with a token if r demands one, which leases have without it. If that fails,
// it releases h. Its caller adds what was done to the error: here, that would cost each lock an
// allocation for the keys.
func (l *Locker) withToken(ctx context.Context, h held, r request) (held, error) {
	if !r.fenced || l.schema != "" {
		return h, nil
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if limit := r.limit(); limit.For > 0 {
		limited, cancel = context.WithDeadline(ctx, r.began.Add(limit.For))
	}
	defer cancel()
	token, err := newToken(limited, h.parts())
	if err == nil {
		return fencedLock{h, token}, nil
	}
	releaseSoon(h)
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, ErrPooler):
	case limited.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w: no reply in time", ErrUnavailable) // it is not ctx's error
	case !errors.Is(err, ErrUnavailable):
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil, err
}

// newToken returns a token for holds, all of which were held when it was made. Postgres
// numbers transactions in their order, so it is greater than those of the holders before.
//
// Each session is asked, one after the other, and the first number is the token: that the others
// reply later proves that they still held their locks when it was made.
func newToken(ctx context.Context, holds []*engine.Hold) (int64, error) {
	var token int64
	asked := map[int32]bool{}
	for _, h := range holds {
		pid := h.PID()
		if asked[pid] {
			continue
		}
		asked[pid] = true
		reply, err := h.Query(ctx, tokenSQL)
		if err != nil {
			return 0, err
		}
		backend, id, _ := strings.Cut(reply, ":")
		if backend != strconv.Itoa(int(pid)) {
			return 0, fmt.Errorf("%w: another backend replied", ErrPooler)
		}
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil || n <= 0 {
			return 0, fmt.Errorf("invalid transaction ID %q", id)
		}
		if token == 0 {
			token = n
		}
	}
	for _, h := range holds {
		if err := h.Err(); err != nil {
			return 0, errors.New(err.Error()) // not ErrLost, since nobody has relied on the lock
		}
	}
	return token, nil
}
