package pgtest

import (
	"context"
	"fmt"
	"log"
	"testing"
)

// An Example implements as much of testing.TB as a database needs, for examples. Error
// prints, which changes the example's output; Fatal ends the example.
type Example struct {
	testing.TB
	atEnd []func()
}

func (e *Example) Helper()                      {}
func (e *Example) Context() context.Context     { return context.Background() }
func (e *Example) Cleanup(f func())             { e.atEnd = append(e.atEnd, f) }
func (e *Example) Error(args ...any)            { fmt.Println(args...) }
func (e *Example) Errorf(f string, args ...any) { fmt.Printf(f, args...) }
func (e *Example) Fatal(args ...any)            { log.Panic(args...) }
func (e *Example) Fatalf(f string, args ...any) { log.Panicf(f, args...) }

// Done ends the example and runs the functions given to Cleanup, the last one first.
func (e *Example) Done() {
	for i := len(e.atEnd) - 1; i >= 0; i-- {
		e.atEnd[i]()
	}
}
