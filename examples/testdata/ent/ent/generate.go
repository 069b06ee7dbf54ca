// Package ent is ent's generated code. The feature sql/execquery gives its
// transactions the methods that sqllock.Tx needs.
package ent

//go:generate go tool ent generate --feature sql/execquery ./schema
