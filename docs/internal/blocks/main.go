// Command blocks runs the Go code of the guides, one block at a time. Package
// doctest writes the blocks into it while it is built; as it stands here it has
// none.
//
//	blocks BLOCK
//
// runs one against the database that DATABASE_URL names.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 2 || blocks()[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "the name of a block is needed")
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
