// Package config reads pglock's config file: named databases, and named views, each
// of which selects locks and how they are shown. The command and Go programs read the
// same file.
//
//	c, err := config.Load("") // where the command looks for it
//	view, err := c.View("stuck")
//	locks, err := inspect.Locks(ctx, q, view.Filters()...) // inspect.Blocked if view.IsBlocking()
//
// The file is YAML; docs/config.md describes it. An error in the file names the line
// and lists the valid choices. The package is separate from package inspect, which
// imports only the standard library.
package config
