package connect

import (
	"net"
	"time"
)

// A dialError is an error of the operating system when dialing.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dialer returns a dialer with the keepalive settings. Without any, Go's defaults apply,
// which detect a lost connection sooner than the system's.
func (v values) dialer() (*net.Dialer, error) {
	d := &net.Dialer{}
	on := 1
	var err error
	if _, ok := v["keepalives"]; ok {
		if on, err = v.number("keepalives"); err != nil {
			return nil, err
		}
	}
	idle, err := v.number("keepalives_idle")
	if err != nil {
		return nil, err
	}
	interval, err := v.number("keepalives_interval")
	if err != nil {
		return nil, err
	}
	probes, err := v.number("keepalives_count")
	if err != nil {
		return nil, err
	}
	timeout, err := v.number("tcp_user_timeout")
	if err != nil {
		return nil, err
	}
	switch {
	case on == 0:
		d.KeepAlive = -1
	case idle > 0 || interval > 0 || probes > 0:
		// Unset values are the system's.
		orSystem := func(n int) int {
			if n <= 0 {
				return -1
			}
			return n
		}
		d.KeepAliveConfig = net.KeepAliveConfig{
			Enable:   true,
			Idle:     time.Duration(orSystem(idle)) * time.Second,
			Interval: time.Duration(orSystem(interval)) * time.Second,
			Count:    orSystem(probes),
		}
	}
	if timeout > 0 {
		d.Control = userTimeout(timeout)
	}
	return d, nil
}
