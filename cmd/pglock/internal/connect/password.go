package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/term"
)

// errNoTerminal is returned if there is no terminal to prompt for a password.
var errNoTerminal = errors.New("no terminal to prompt for a password: set PGPASSWORD or use .pgpass")

// WithPassword calls try and prompts for the password when psql would: before try,
// with -W, or if the server requires one and none was found, unless -w is given. In the
// latter case it calls try again. ctx ends the prompt.
func (f Flags) WithPassword(ctx context.Context, t *Target, try func() error) error {
	if f.Ask {
		if err := promptPassword(ctx, t); err != nil {
			return err
		}
		return try()
	}
	err := try()
	var failed *Error
	if !errors.Is(err, errNoPassword) || !errors.As(err, &failed) {
		return err
	}
	failed.advice = "set PGPASSWORD or add the password to " + t.passfile
	if t.passfile == "" {
		failed.advice = "set PGPASSWORD"
	}
	if f.NeverAsk {
		return err
	}
	if promptErr := promptPassword(ctx, t); errors.Is(promptErr, errNoTerminal) {
		failed.advice = "no terminal to prompt for it: " + failed.advice
		return err
	} else if promptErr != nil {
		return promptErr
	}
	return try()
}

// promptPassword prompts for a password at the terminal, without echoing it.
func promptPassword(ctx context.Context, t *Target) error {
	in, out, err := openTerminal()
	if err != nil {
		return errNoTerminal
	}
	defer out.Close()
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return errNoTerminal
	}
	// Turn the echo off first: keys typed before the prompt must not be shown either.
	if err := disableEcho(fd); err != nil {
		return errNoTerminal
	}
	read := false
	defer func() {
		_ = term.Restore(fd, before)
		if read { // else the goroutine below still reads from it
			in.Close()
		}
	}()
	fmt.Fprintf(out, "Password for user %q: ", t.User)
	type input struct {
		password []byte
		err      error
	}
	inputs := make(chan input, 1)
	go func() {
		password, err := term.ReadPassword(fd)
		inputs <- input{password, err}
	}()
	select {
	case a := <-inputs:
		read = true
		fmt.Fprintln(out)
		if a.err != nil {
			return fmt.Errorf("reading the password: %w", a.err)
		}
		t.SetPassword(string(a.password))
		return nil
	case <-ctx.Done():
		// Only input ends the read, but the process is about to exit. The deferred
		// call turns the echo on again.
		fmt.Fprintln(out)
		return context.Cause(ctx)
	}
}

// openTerminal opens the controlling terminal, even if the streams are redirected.
func openTerminal() (in, out *os.File, err error) {
	input, output := "/dev/tty", "/dev/tty"
	if runtime.GOOS == "windows" {
		input, output = "CONIN$", "CONOUT$"
	}
	if in, err = os.OpenFile(input, os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	if out, err = os.OpenFile(output, os.O_WRONLY, 0); err != nil {
		in.Close()
		return nil, nil, err
	}
	return in, out, nil
}
