// Package chaos tests locks under faults: processes acquire and release locks while
// faults happen, every operation is recorded, and a checker decides whether the history
// is that of correct locks.
//
// A [Round] starts a server, a few workers, and a proxy for each of them. A worker is
// this program in another process (worker.go). It acquires and releases locks in every
// way that pglock has (verbs.go), and records what it does (history.go). The round then
// causes faults, one after another (nemesis.go). From time to time, all workers release
// their locks, and Postgres must have none left. At the end, the histories are checked
// (check.go explains how) and counted (table.go).
//
// With leases in place of advisory locks, some workers connect through a pooler (leases.go),
// there are other faults (leasefaults.go), holders write in transactions that their leases
// fence (fence.go), and the histories must keep other promises (leasecheck.go).
//
// The tests run each fault once; the program soak runs random faults for a given time.
package chaos
