package pglock_test

import (
	"log"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// exampleDatabase makes a database for an example, which ends with done.
func exampleDatabase() (dsn string, done func()) {
	e := &pgtest.Example{}
	return pgtest.Database(e), e.Done
}

// check ends an example that went wrong.
func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
