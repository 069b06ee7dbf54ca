package peer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ttl is how long a lock in Redis lasts. No lock is held for that long, so none needs
// to be extended.
const ttl = time.Minute

func openRedis(ctx context.Context, at Addresses) (*redis.Client, error) {
	network, address, ok := strings.Cut(at.Redis, " ")
	if !ok {
		return nil, fmt.Errorf("peer: %q is not a network and an address", at.Redis)
	}
	client := redis.NewClient(&redis.Options{
		Network: network, Addr: address, PoolSize: connections,
		// A feature of hosted servers; a plain one logs an error.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		// Wait for a connection of the pool, however long it takes.
		PoolTimeout: time.Minute,
	})
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

func redisKey(key int64) string { return "lock:" + strconv.FormatInt(key, 10) }

type redsyncPeer struct {
	client  *redis.Client
	sync    *redsync.Redsync
	options []redsync.Option
}

func openRedsync(eager bool) func(context.Context, Addresses) (Peer, error) {
	return func(ctx context.Context, at Addresses) (Peer, error) {
		client, err := openRedis(ctx, at)
		if err != nil {
			return nil, err
		}
		options := []redsync.Option{redsync.WithExpiry(ttl), redsync.WithTries(math.MaxInt)}
		if eager {
			options = append(options, redsync.WithRetryDelayFunc(func(int) time.Duration {
				return 500*time.Microsecond + rand.N(time.Millisecond)
			}))
		}
		return redsyncPeer{client, redsync.New(goredis.NewPool(client)), options}, nil
	}
}

func (p redsyncPeer) Locker(context.Context, bool) (Locker, error) { return p, nil }
func (p redsyncPeer) Close() error                                 { return p.client.Close() }

// Connections returns the number of open connections.
func (p redsyncPeer) Connections() int { return int(p.client.PoolStats().TotalConns) }

type redsyncHeld struct{ mutex *redsync.Mutex }

func (p redsyncPeer) Lock(ctx context.Context, key int64) (Held, error) {
	m := p.sync.NewMutex(redisKey(key), p.options...)
	if err := m.LockContext(ctx); err != nil {
		return nil, err
	}
	return redsyncHeld{m}, nil
}

func (p redsyncPeer) TryLock(ctx context.Context, key int64) (Held, error) {
	m := p.sync.NewMutex(redisKey(key), p.options...)
	var taken *redsync.ErrTaken
	if err := m.TryLockContext(ctx); errors.As(err, &taken) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return redsyncHeld{m}, nil
}

func (h redsyncHeld) Unlock() error {
	ok, err := h.mutex.Unlock()
	if err == nil && !ok {
		err = errNotHeld
	}
	return err
}

type redislockPeer struct {
	client *redis.Client
	locks  *redislock.Client
	retry  func() redislock.RetryStrategy
}

func openRedislock(eager bool) func(context.Context, Addresses) (Peer, error) {
	return func(ctx context.Context, at Addresses) (Peer, error) {
		client, err := openRedis(ctx, at)
		if err != nil {
			return nil, err
		}
		// A strategy counts its tries, so each lock needs a new one.
		retry := func() redislock.RetryStrategy {
			return redislock.ExponentialBackoff(16*time.Millisecond, 128*time.Millisecond)
		}
		if eager {
			retry = func() redislock.RetryStrategy { return redislock.LinearBackoff(time.Millisecond) }
		}
		return redislockPeer{client, redislock.New(client), retry}, nil
	}
}

func (p redislockPeer) Locker(context.Context, bool) (Locker, error) { return p, nil }
func (p redislockPeer) Close() error                                 { return p.client.Close() }

// Connections returns the number of open connections.
func (p redislockPeer) Connections() int { return int(p.client.PoolStats().TotalConns) }

type redislockHeld struct{ lock *redislock.Lock }

func (p redislockPeer) Lock(ctx context.Context, key int64) (Held, error) {
	lock, err := p.locks.Obtain(ctx, redisKey(key), ttl, &redislock.Options{RetryStrategy: p.retry()})
	if err != nil {
		return nil, err
	}
	return redislockHeld{lock}, nil
}

func (p redislockPeer) TryLock(ctx context.Context, key int64) (Held, error) {
	lock, err := p.locks.Obtain(ctx, redisKey(key), ttl, nil)
	if errors.Is(err, redislock.ErrNotObtained) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return redislockHeld{lock}, nil
}

func (h redislockHeld) Unlock() error { return h.lock.Release(context.Background()) }
