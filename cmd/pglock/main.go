// Command pglock runs commands under Postgres locks, and shows who holds locks and who
// waits. See pglock --help.
package main

import (
	"os"

	"github.com/pglock-go/pglock/cmd/pglock/internal/cli"
)

//go:generate go run ./internal/manpages man

func main() {
	os.Exit(cli.Main(os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Environ()))
}
