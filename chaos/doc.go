// Package chaos proves that locks stay locks while things break: processes take and
// release them under faults, every operation is recorded, and a checker decides
// whether the history is one of correct locks.
//
// A [Round] starts a server, a proxy for each of a few workers, and the workers: this
// program again, as other processes (worker.go), which take and give back locks in all
// ways (verbs.go) and write that down (history.go). Then it does harm, step by step
// (nemesis.go). Now and then all give back what they have, and Postgres is asked what
// is left. In the end the histories are judged (check.go, which says how) and counted
// (table.go).
//
// The tests run each fault once; the program soak runs them at random for as long as
// it is told.
package chaos
