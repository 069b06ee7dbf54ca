//go:build !unix

package chaos

// WorkerMain is for systems with the signals of Unix. Here no process is a worker.
func WorkerMain() (bool, error) { return false, nil }
