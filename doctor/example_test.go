package doctor_test

import (
	"context"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/pglock-go/pglock/doctor"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func exampleDatabase() (dsn string, done func()) {
	e := &pgtest.Example{}
	return pgtest.Database(e), e.Done
}

// Check a database when a program starts.
func ExampleRun() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	report, err := doctor.Run(ctx, pgxlock.ConnString(dsn), doctor.Only("pooler", "standby"))
	if err != nil {
		log.Panic(err)
	}
	for _, f := range report.Findings {
		fmt.Println(f.Level, f.Text, f.Advice)
	}
	if report.Level() != doctor.OK {
		log.Println("pglock run will not work here")
	}
	// Output:
	// ok direct: no pooler []
	// ok primary []
}

// Report transactions that have been idle or prepared for an hour.
func ExampleOlderThan() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	report, err := doctor.Run(ctx, pgxlock.ConnString(dsn), doctor.Only("now"), doctor.OlderThan(time.Hour))
	if err != nil {
		log.Panic(err)
	}
	for _, f := range report.Findings {
		fmt.Println(f.ID, f.Text)
	}
	// Output:
	// prepared no prepared transaction older than 1h
	// idle no idle transaction older than 1h
}

// Names has the names of checks and of findings.
func ExampleNames() {
	fmt.Println(slices.Contains(doctor.Names(), "settings"), slices.Contains(doctor.Names(), "log_lock_waits"))
	// Output: true true
}
