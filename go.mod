module github.com/pglock-go/pglock

go 1.25.0
