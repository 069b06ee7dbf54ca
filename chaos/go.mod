module github.com/pglock-go/pglock/chaos

go 1.25.0

// github.com/pglock-go/pglock comes from the workspace; see docs/releasing.md.
