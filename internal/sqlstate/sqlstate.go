// Package sqlstate classifies errors of Postgres by SQLSTATE, never by message text,
// which is translated and changes between versions.
package sqlstate

import "errors"

// The codes that pglock handles (PostgreSQL manual, Appendix A).
const (
	FeatureNotSupported      = "0A000"
	DivisionByZero           = "22012"
	InvalidRegularExpression = "2201B"
	ActiveTransaction        = "25001"
	NoActiveTransaction      = "25P01"
	InFailedTransaction      = "25P02"
	DependentObjectsExist    = "2BP01"
	InvalidCatalogName       = "3D000"
	InvalidSchemaName        = "3F000"
	ReadOnlyTransaction      = "25006"
	SerializationFailure     = "40001"
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

// Of returns the SQLSTATE of an error that Postgres sent, or "" for any other error. The
// errors of pgx and lib/pq both have an SQLState method.
func Of(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	return ""
}
