package pglock_test

import (
	"context"
	"fmt"
	"log"
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// exampleDatabase makes a database for an example, which ends with done.
func exampleDatabase() (dsn string, done func()) {
	e := &exampleTB{}
	return pgtest.Database(e), e.done
}

// exampleTB is as much of a test as a database needs.
type exampleTB struct {
	testing.TB
	atEnd []func()
}

func (e *exampleTB) Helper()                      {}
func (e *exampleTB) Context() context.Context     { return context.Background() }
func (e *exampleTB) Cleanup(f func())             { e.atEnd = append(e.atEnd, f) }
func (e *exampleTB) Error(args ...any)            { fmt.Println(args...) }
func (e *exampleTB) Fatal(args ...any)            { log.Panic(args...) }
func (e *exampleTB) Fatalf(f string, args ...any) { log.Panicf(f, args...) }

func (e *exampleTB) done() {
	for i := len(e.atEnd) - 1; i >= 0; i-- {
		e.atEnd[i]()
	}
}

// check ends an example that went wrong.
func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
