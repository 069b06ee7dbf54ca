// Package sqlstate classifies what Postgres reports by its SQLSTATE, never by
// the text of a message, which is translated and changes.
package sqlstate

import "errors"

// The codes that pglock tells apart (PostgreSQL manual, Appendix A).
const (
	FeatureNotSupported      = "0A000"
	InvalidRegularExpression = "2201B"
	NoActiveTransaction      = "25P01"
	InFailedTransaction      = "25P02"
	InvalidCatalogName       = "3D000"
	InvalidSchemaName        = "3F000"
	DeadlockDetected         = "40P01"
	InvalidStatementName     = "26000"
	DuplicateStatement       = "42P05"
	InsufficientPrivilege    = "42501"
	SyntaxError              = "42601"
	InvalidName              = "42602"
	WrongObjectType          = "42809"
	UndefinedTable           = "42P01"
	UndefinedColumn          = "42703"
	UndefinedObject          = "42704"
	UndefinedFunction        = "42883"
	OutOfMemory              = "53200"
	TooManyConnections       = "53300"
	LockNotAvailable         = "55P03"
	QueryCanceled            = "57014"
	AdminShutdown            = "57P01"
	CannotConnectNow         = "57P03"
)

// Of is the SQLSTATE of an error that Postgres sent, or "" for any other error.
// The errors of pgx and of lib/pq both have the method that it looks for.
func Of(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	return ""
}
