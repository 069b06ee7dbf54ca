package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// An Error reports why no connection was made, with the last failure of each address.
type Error struct {
	User, Database string

	failures []failure
	final    bool   // the last failure ended the search
	advice   string // what to do about it
}

// A failure is why an address failed. Only the last try of an address is kept.
type failure struct {
	address  string
	err      error
	passfile string // where the password came from
	timeout  time.Duration
}

func (e *Error) add(f failure) {
	for i := range e.failures {
		if e.failures[i].address == f.address {
			e.failures = append(e.failures[:i], e.failures[i+1:]...)
			break
		}
	}
	e.failures = append(e.failures, f)
}

// Error returns all failures on one line.
func (e *Error) Error() string {
	var all []string
	for _, f := range e.failures {
		text := f.address
		if e.refused(f.err) {
			text += fmt.Sprintf(" as user %s, database %s", strconv.Quote(e.User), strconv.Quote(e.Database))
		}
		all = append(all, text+": "+f.reason())
	}
	text := "cannot connect to " + strings.Join(all, "; ")
	if e.advice != "" {
		text += "; " + e.advice
	}
	return text
}

// refused reports whether the server rejected the user or the database.
func (e *Error) refused(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) || errors.Is(err, errNoPassword)
}

// Unwrap returns the failure that decides the exit code: the first that may pass, or
// else the last. If the last failure ended the search, it decides.
func (e *Error) Unwrap() error {
	if len(e.failures) == 0 {
		return nil
	}
	last := e.failures[len(e.failures)-1].err
	if e.final {
		return last
	}
	for _, f := range e.failures {
		if mayPass(f.err) {
			return f.err
		}
	}
	return last
}

// MayPass reports whether a later try may succeed, because no server answered or the
// server accepts no sessions now.
func (e *Error) MayPass() bool { return mayPass(e.Unwrap()) }

func mayPass(err error) bool {
	var refused *pgconn.PgError
	var dial *dialError
	var lookup *net.DNSError
	var target *targetError
	switch {
	case errors.As(err, &refused):
		// Insufficient resources, or a server that starts, stops or recovers.
		return strings.HasPrefix(refused.Code, "53") ||
			refused.Code == "57P01" || refused.Code == "57P02" || refused.Code == "57P03"
	case errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &dial):
		return !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EINVAL)
	}
	return errors.As(err, &lookup) || errors.As(err, &target) || isEnd(err) || isTimeout(err)
}

func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err)
}

// reason returns the failure's message.
func (f failure) reason() string {
	var (
		refused     *pgconn.PgError
		lookup      *net.DNSError
		network     *net.OpError
		system      *os.SyscallError
		settings    *SettingsError
		certificate *certificateError
		target      *targetError
		connect     *pgconn.ConnectError
	)
	err := f.err
	switch {
	case errors.As(err, &refused):
		text := refused.Message
		if refused.Code == invalidPassword && f.passfile != "" {
			text += "; the password is from " + f.passfile
		}
		return text
	case errors.As(err, &settings):
		return strings.TrimPrefix(settings.Text, "connection settings: ")
	case errors.As(err, &certificate):
		return certificate.Error()
	case errors.As(err, &target):
		return target.Error()
	case errors.Is(err, errNoPassword):
		return errNoPassword.Error()
	case errors.As(err, &lookup):
		return lookup.Err
	case isTimeout(err) && f.timeout > 0:
		return fmt.Sprintf("no answer within %v", f.timeout)
	case isEnd(err):
		return "the server closed the connection"
	case errors.As(err, &system):
		return system.Err.Error()
	case errors.As(err, &network) && network.Err != nil:
		return network.Err.Error()
	case errors.As(err, &connect):
		// pgx repeats the address; drop it.
		err = connect.Unwrap()
		if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) == 1 {
			err = all.Unwrap()[0]
		}
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// invalidPassword is the SQLSTATE of a wrong password.
const invalidPassword = "28P01"
