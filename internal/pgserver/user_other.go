//go:build !unix

package pgserver

import (
	"errors"
	"os"
	"runtime"
	"syscall"
)

var errUnsupported = errors.New("pgserver: cannot start a throwaway server on " + runtime.GOOS +
	"; start one yourself and set PGLOCK_TEST_DATABASE=postgres://user@host/db")

func serverIdentity() (identity, error) { return identity{}, errUnsupported }

func (id identity) attributes() *syscall.SysProcAttr { return nil }

func (id identity) own(string) error { return errUnsupported }

func checkOwner(string) error { return errUnsupported }

func lockFile(*os.File) (bool, error) { return false, errUnsupported }
