module github.com/pglock-go/pglock/cmd/pglock

go 1.25.0

require github.com/pglock-go/pglock v0.1.0
