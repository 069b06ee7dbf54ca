package engine

import (
	"context"
	"errors"
	"time"
)

// A Notifier is a Conn that receives notifications. driver.Notifier documents it.
type Notifier interface {
	Conn
	Notification(ctx context.Context) (payload string, err error)
}

// A releaseListener has a connection of its own, on which it is notified of the release of leases.
// It is used only if no pooler is between, since a pooler delivers no notification.
type releaseListener struct {
	engine *Engine
	cancel context.CancelFunc
	done   chan struct{} // closed when its goroutine has ended

	listens bool // guarded by Engine.mu
}

// startListening starts a listener, if the connection could receive notifications.
func (l *leaseSession) startListening() {
	if l.listener != nil || !l.direct {
		return
	}
	if _, ok := l.conn.(Notifier); !ok {
		return
	}
	ctx, cancel := context.WithCancel(l.engine.ctx)
	listener := &releaseListener{engine: l.engine, cancel: cancel, done: make(chan struct{})}
	l.engine.mu.Lock()
	l.listener = listener
	l.engine.mu.Unlock()
	go listener.run(ctx)
}

// active reports whether a release will be notified. Engine.mu must be held.
func (n *releaseListener) active() bool { return n != nil && n.listens }

// stop ends the listener.
func (n *releaseListener) stop() {
	n.cancel()
	<-n.done
}

// run listens until ctx ends.
func (n *releaseListener) run(ctx context.Context) {
	defer close(n.done)
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, time.Minute) {
		began := time.Now()
		err := n.listen(ctx)
		n.engine.mu.Lock()
		n.listens = false
		n.engine.unlockMu()
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// listen listens on one connection until it fails.
func (n *releaseListener) listen(ctx context.Context) error {
	e := n.engine
	open, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := e.config.Open(open)
	if err != nil {
		return err
	}
	defer conn.Close()
	notifier, ok := conn.(Notifier)
	if !ok {
		return errors.ErrUnsupported
	}
	if err := conn.Exec(open, "LISTEN pglock"); err != nil {
		return err
	}
	e.mu.Lock()
	n.listens = true
	e.unlockMu()
	e.tryNamed("") // released before we listened
	for {
		name, err := notifier.Notification(ctx)
		if err != nil {
			return err
		}
		e.tryNamed(name)
	}
}
