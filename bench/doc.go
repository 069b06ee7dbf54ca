// Command bench measures pglock beside its peers, in turn, on the same machine in
// the same run, and writes what came of it into docs/performance.md. It is run by
// make bench; see scripts/bench.
//
// A scenario (scenario.go) is one kind of work, and its contenders those who do it.
// The runner (run.go) has them take turns, round by round, and keeps every
// measurement; the report (report.go) makes tables and plots of them, and goals.go
// says of each goal whether it is met. Nothing in between is done by hand: what was
// measured is in docs/performance.json, from which the report can be made anew.
package main
