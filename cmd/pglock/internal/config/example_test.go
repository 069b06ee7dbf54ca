package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

func Example() {
	c, err := config.Parse("pglock.yaml", []byte(`
views:
  stuck:
    filters: wait_duration > 5s
    tables: orders
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	view, err := c.View("stuck")
	if err != nil {
		fmt.Println(err)
		return
	}
	// Pass them to inspect.Locks or inspect.Blocked.
	for _, filter := range view.Filters() {
		fmt.Println(filter)
	}
	// Output:
	// wait_duration > 5s
	// on orders
}

func ExampleParse_wrong() {
	_, err := config.Parse("pglock.yaml", []byte("views:\n  stuck:\n    limit: some\n"))
	fmt.Println(err)
	// Output:
	// pglock.yaml:3: limit must be a number (0 for all), not "some"
}

// A named file, and its content.
func ExampleLoad() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "pglock.yaml")
	err = os.WriteFile(path, []byte(`
databases:
  prod: postgres://oncall@db.example.com/shop
views:
  idle-blockers:
    database: prod
    blocking: true
    filters: blocking_state = idle in transaction
    output: json
`), 0o600)
	if err != nil {
		panic(err)
	}

	c, err := config.Load(path) // "" is to look where the command does, in config.Places()
	if err != nil {
		panic(err)
	}
	view, err := c.View("idle-blockers")
	if err != nil {
		panic(err)
	}
	database, _ := c.Database(view.Database)
	fmt.Println(database.ConnString)
	fmt.Println("pairs:", view.IsBlocking(), "filters on pairs:", config.OfPairs(view.Filters()[0]))
	fmt.Println("output", view.Output, "of", config.Outputs(), "in line", view.LineOf("output"))
	fmt.Println(len(config.Places()) > 0)
	// Output:
	// postgres://oncall@db.example.com/shop
	// pairs: true filters on pairs: true
	// output json of [table tsv csv json] in line 9
	// true
}

// An error in a file has a line.
func ExampleError() {
	_, err := config.Parse("pglock.yaml", []byte("views:\n  stuck:\n    filters: waiting > 5s\n"))
	var wrong *config.Error
	fmt.Println(errors.As(err, &wrong), wrong.Line, wrong.Error() == err.Error())
	// Output: true 3 true
}
