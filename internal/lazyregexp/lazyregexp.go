// Package lazyregexp compiles regular expressions when they are first used. A program
// that imports a package with many patterns then does not pay for all of them when it
// starts, which for a command is on every call.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that returns the compiled expression. It panics if the
// expression is invalid, as regexp.MustCompile does, but only when it is called.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
