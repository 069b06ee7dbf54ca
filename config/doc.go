// Package config reads pglock's config file: named databases, and named views,
// each of which says which locks it is about and how they are shown. The command
// and a Go program read the same file.
//
//	c, err := config.Load("") // where the command looks for it
//	view, err := c.View("stuck")
//	locks, err := inspect.Locks(ctx, q, view.Filters()...) // inspect.Blocked if view.IsBlocking()
//
// The file is YAML; docs/config.md describes it. Whatever is wrong with it is an
// error that has its line and says what there is instead. The package is apart
// from package inspect because that one imports the standard library only.
package config
