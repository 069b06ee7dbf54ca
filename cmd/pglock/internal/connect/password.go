package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/jackc/pgx/v5"
	"golang.org/x/term"
)

// errNoTerminal says that there is nobody to ask for a password.
var errNoTerminal = errors.New("there is no terminal to ask for a password at; set PGPASSWORD or use .pgpass")

// WithPassword calls try with config, and asks for the password where psql does:
// before, with -W; or when the server wants one and none was given, unless -w
// says never to ask. ctx ends the asking.
func (f Flags) WithPassword(ctx context.Context, config *pgx.ConnConfig, try func(*pgx.ConnConfig) error) error {
	if f.Ask {
		if err := ask(ctx, config); err != nil {
			return err
		}
		return try(config)
	}
	err := try(config)
	if err == nil || f.NeverAsk || config.Password != "" || !wantsPassword(err) {
		return err
	}
	if askErr := ask(ctx, config); askErr != nil {
		if errors.Is(askErr, errNoTerminal) {
			return err
		}
		return askErr
	}
	return try(config)
}

// wantsPassword reports whether the server refused for lack of a password
// (SQLSTATE 28P01, invalid_password).
func wantsPassword(err error) bool {
	var state interface{ SQLState() string }
	return errors.As(err, &state) && state.SQLState() == "28P01"
}

// ask reads a password from the terminal, without showing it, into config.
func ask(ctx context.Context, config *pgx.ConnConfig) error {
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
	fmt.Fprintf(out, "Password for user %q: ", config.User)
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
		config.Password = string(a.password)
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
