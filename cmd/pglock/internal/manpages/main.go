// Command manpages writes the man pages of pglock into a directory. go generate runs it.
package main

import (
	"fmt"
	"os"

	"github.com/pglock-go/pglock/cmd/pglock/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manpages FOLDER")
		os.Exit(2)
	}
	if err := cli.WriteManPages(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
