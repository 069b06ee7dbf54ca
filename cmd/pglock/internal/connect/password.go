package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/term"
)

// errNoTerminal says that there is nobody to ask for a password.
var errNoTerminal = errors.New("there is no terminal to ask for a password at; set PGPASSWORD or use .pgpass")

// WithPassword calls try, and asks for the password where psql does: before, with -W;
// or when the server wants one and none was found, unless -w says never to ask. ctx
// ends the asking.
func (f Flags) WithPassword(ctx context.Context, t *Target, try func() error) error {
	if f.Ask {
		if err := ask(ctx, t); err != nil {
			return err
		}
		return try()
	}
	err := try()
	var failed *Error
	if !errors.Is(err, errNoPassword) || !errors.As(err, &failed) {
		return err
	}
	failed.advice = "set PGPASSWORD, or write it into " + t.passfile
	if t.passfile == "" {
		failed.advice = "set PGPASSWORD"
	}
	if f.NeverAsk {
		return err
	}
	if askErr := ask(ctx, t); errors.Is(askErr, errNoTerminal) {
		failed.advice = "there is no terminal to ask for it at: " + failed.advice
		return err
	} else if askErr != nil {
		return askErr
	}
	return try()
}

// ask reads a password from the terminal, without showing it.
func ask(ctx context.Context, t *Target) error {
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
	// Silent first: what is typed at the prompt must not be shown, however early.
	if err := silence(fd); err != nil {
		return errNoTerminal
	}
	read := false
	defer func() {
		_ = term.Restore(fd, before)
		if read { // else it is still being read from
			in.Close()
		}
	}()
	fmt.Fprintf(out, "Password for user %q: ", t.User)
	type answer struct {
		password []byte
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		password, err := term.ReadPassword(fd)
		answers <- answer{password, err}
	}()
	select {
	case a := <-answers:
		read = true
		fmt.Fprintln(out)
		if a.err != nil {
			return fmt.Errorf("reading the password: %w", a.err)
		}
		t.SetPassword(string(a.password))
		return nil
	case <-ctx.Done():
		// Nothing but a key ends the reading; the process ends now anyway. The
		// terminal must show again what is typed.
		fmt.Fprintln(out)
		return context.Cause(ctx)
	}
}

// openTerminal opens the terminal of this process, whatever its streams are.
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
