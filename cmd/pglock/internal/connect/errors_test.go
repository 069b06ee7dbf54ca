package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// MayPass is true for errors that a later try can avoid (PostgreSQL manual, appendix A
// "PostgreSQL Error Codes").
func TestMayPass(t *testing.T) {
	server := func(code string) error { return fmt.Errorf("server error: %w", &pgconn.PgError{Code: code}) }
	system := func(errno syscall.Errno) error {
		return &dialError{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}}
	}
	for err, want := range map[error]bool{
		server("53300"):              true,  // too_many_connections
		server("53400"):              true,  // configuration_limit_exceeded
		server("57P01"):              true,  // admin_shutdown
		server("57P02"):              true,  // crash_shutdown
		server("57P03"):              true,  // cannot_connect_now
		server("57P04"):              false, // database_dropped
		server("28P01"):              false, // invalid_password
		server("28000"):              false, // invalid_authorization_specification
		server("3D000"):              false, // invalid_catalog_name
		server("42501"):              false, // insufficient_privilege
		server("22023"):              false, // invalid_parameter_value
		server("55000"):              false, // a database that takes no connections
		system(syscall.ECONNREFUSED): true,
		system(syscall.ENOENT):       true,
		system(syscall.EHOSTUNREACH): true,
		system(syscall.EACCES):       false,
		io.ErrUnexpectedEOF:          true,
		syscall.ECONNRESET:           true,
		context.DeadlineExceeded:     true,
		context.Canceled:             false,
		&net.DNSError{}:              true,
		&targetError{}:               true,
		&certificateError{}:          false,
		&SettingsError{}:             false,
		errNoPassword:                false,
		errors.New("another"):        false,
	} {
		if got := (&Error{failures: []failure{{err: err}}}).MayPass(); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// Of several failures, the last decides if it ended the search, or else one that may pass.
func TestErrorOfSeveral(t *testing.T) {
	down := failure{address: "a:1", err: &dialError{syscall.ECONNREFUSED}}
	wrong := failure{address: "b:2", err: &pgconn.PgError{Code: "28P01", Message: "no"}}
	e := &Error{User: "u", Database: "d"}
	e.add(failure{address: "b:2", err: errors.New("with TLS")})
	e.add(down)
	e.add(wrong)
	if got, want := e.Error(), `cannot connect to a:1: connection refused; b:2 as user "u", database "d": no`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if !e.MayPass() {
		t.Error("a server is down, but MayPass is false")
	}
	e.final = true
	if e.MayPass() {
		t.Error("the server refused, but MayPass is true")
	}
	if strings.Contains(e.Error(), "with TLS") {
		t.Error("the error contains an earlier try of the same address")
	}
}
