// Command bench measures pglock and its peers in turn, on the same machine in the same
// run, and writes the results into docs/performance.md. It is run by make bench; see
// scripts/bench.
//
// A scenario (scenario.go) is one kind of work, and its contenders are the libraries
// that do it. The runner (run.go) gives each contender a turn in every round and keeps
// every measurement. The report (report.go) turns them into tables and plots, and
// goals.go decides whether each goal is met. No step is manual: the measurements are in
// docs/performance/results.json, from which the report can be written again.
package main
