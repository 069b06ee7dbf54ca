module github.com/pglock-go/pglock/cmd/pglock

go 1.25.0

// github.com/pglock-go/pglock comes from the workspace. Its line is missing here
// until it is published: the go command would ask for a version that does not
// exist yet. A release adds it; the tidiness check adds it in a copy.
