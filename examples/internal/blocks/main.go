// Command blocks runs the Go code of the guides, one block at a time. Package
// doctest adds the blocks when it builds the command; this source has none.
//
//	blocks BLOCK
//
// runs one block against the database given by DATABASE_URL.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 2 || blocks()[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: blocks BLOCK; BLOCK must be the name of a block")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := &World{ctx: ctx, dsn: os.Getenv("DATABASE_URL")}
	err := blocks()[os.Args[1]](w)
	w.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
