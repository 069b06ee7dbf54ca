package pglock_test

import (
	"log"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// exampleDatabase creates a database for an example; done drops it.
func exampleDatabase() (dsn string, done func()) {
	e := &pgtest.Example{}
	return pgtest.Database(e), e.Done
}

// check ends an example on an error.
func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
