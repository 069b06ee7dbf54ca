package peer

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

type etcdPeer struct {
	client *etcd.Client

	mu       sync.Mutex // guards sessions
	sessions []*concurrency.Session
}

func openEtcd(ctx context.Context, at Addresses) (Peer, error) {
	client, err := etcd.New(etcd.Config{
		Endpoints: []string{at.Etcd}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, err
	}
	p := &etcdPeer{client: client}
	if _, err := p.session(ctx); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return p, nil
}

func (p *etcdPeer) session(ctx context.Context) (*concurrency.Session, error) {
	// The keep-alives use this ctx too, so it must outlive the caller's.
	s, err := concurrency.NewSession(p.client, concurrency.WithTTL(60), concurrency.WithContext(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = append(p.sessions, s)
	return s, nil
}

// Locker returns a locker with a separate session if keys are contended, because a
// session can lock again what it already holds.
func (p *etcdPeer) Locker(ctx context.Context, contended bool) (Locker, error) {
	if !contended {
		return etcdLocker{p.sessions[0]}, nil
	}
	s, err := p.session(ctx)
	if err != nil {
		return nil, err
	}
	return etcdLocker{s}, nil
}

func (p *etcdPeer) Close() error {
	var errs []error
	for _, s := range p.sessions {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, p.client.Close())...)
}

type etcdLocker struct{ session *concurrency.Session }

type etcdHeld struct{ mutex *concurrency.Mutex }

func (l etcdLocker) mutex(key int64) *concurrency.Mutex {
	return concurrency.NewMutex(l.session, "/lock/"+strconv.FormatInt(key, 10))
}

func (l etcdLocker) Lock(ctx context.Context, key int64) (Held, error) {
	m := l.mutex(key)
	if err := m.Lock(ctx); err != nil {
		return nil, err
	}
	return etcdHeld{m}, nil
}

func (l etcdLocker) TryLock(ctx context.Context, key int64) (Held, error) {
	m := l.mutex(key)
	if err := m.TryLock(ctx); errors.Is(err, concurrency.ErrLocked) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return etcdHeld{m}, nil
}

func (h etcdHeld) Unlock() error { return h.mutex.Unlock(context.Background()) }
