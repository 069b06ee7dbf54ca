package config_test

import (
	"fmt"

	"github.com/pglock-go/pglock/config"
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
	// Each is for inspect.Locks and inspect.Blocked.
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
	// pglock.yaml:3: limit is a number, 0 for all, not "some"
}
