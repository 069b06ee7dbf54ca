//go:build !unix

package chaos

// WorkerMain returns false: workers need the signals of Unix.
func WorkerMain() (bool, error) { return false, nil }
