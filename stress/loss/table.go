package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// The faults, and the events that end a measurement.
const (
	processKilled = "holder's process killed (-9)"
	cablePulled   = "cable pulled"

	holderNotified = "the holder's ctx is canceled"
	lockFree       = "another session acquires the lock"
)

// A bound is a promised limit, named for what it depends on.
type bound int

const (
	notifiedAtOnce      bound = iota // the socket is closed, and the driver listens
	notifiedByPing                   // the socket is closed, but the driver does not listen
	notifiedByHeartbeat              // the socket stays open
	freeAtOnce                       // the operating system closes the server's socket
	freeByServer                     // the server's socket stays open
)

// within returns the promised limit for a heartbeat. "At once" is not a number, so it
// allows a tenth of a second for the machine and its scheduler.
func (b bound) within(heartbeat time.Duration) time.Duration {
	switch b {
	case notifiedByPing:
		return heartbeat/2 + atOnce
	case notifiedByHeartbeat:
		return heartbeat + atOnce
	case freeByServer:
		// Three keepalives: the first after two heartbeats, then one every half heartbeat.
		// The server's machine counts in whole seconds.
		return 2*heartbeat + 3*max(heartbeat/2, time.Second) + atOnce
	}
	return atOnce
}

const atOnce = 100 * time.Millisecond

func (b bound) String() string {
	return map[bound]string{
		notifiedAtOnce:      "at once: the socket is closed",
		notifiedByPing:      "½ heartbeat: the driver does not listen, so the next ping fails",
		notifiedByHeartbeat: "1 heartbeat: an unanswered ping",
		freeAtOnce:          "at once: the kernel closes the socket",
		freeByServer:        "3½ heartbeats: `tcp_keepalives_*`, `tcp_user_timeout`",
	}[b]
}

// A row is one line of the table.
type row struct {
	Fault, Until, Driver string
	Heartbeat            time.Duration
	Bound                bound
	Took                 []time.Duration
}

// quantile returns the smallest value that the given share of all do not exceed.
func (r row) quantile(share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(r.Took))
	return sorted[max(int(share*float64(len(sorted))+0.9999999)-1, 0)]
}

func (r row) worst() time.Duration { return slices.Max(r.Took) }

// table formats the rows as Markdown.
func table(rows []row, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Postgres %s; times in milliseconds.\n", version)
	for _, until := range []string{holderNotified, lockFree} {
		fmt.Fprintf(&b, "\nUntil %s:\n\n", until)
		b.WriteString("| fault | driver | heartbeat | n | median | 95 % | longest | bounded by |\n")
		b.WriteString("|---|---|---|---|---|---|---|---|\n")
		for _, r := range rows {
			if r.Until == until {
				fmt.Fprintf(&b, "| %s | %s | %v | %d | %s | %s | %s | %v |\n", r.Fault, r.Driver, r.Heartbeat, len(r.Took),
					millis(r.quantile(0.5)), millis(r.quantile(0.95)), millis(r.worst()), r.Bound)
			}
		}
	}
	return b.String()
}

// millis formats a time in milliseconds, with a decimal below 10.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// writeBetween puts text between the markers of a file.
func writeBetween(path, name, text string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := fmt.Appendf(nil, "<!-- %s: begin -->\n", name), fmt.Appendf(nil, "<!-- %s: end -->", name)
	before, rest, ok := bytes.Cut(file, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %s and %s", path, bytes.TrimSpace(begin), end)
	}
	return os.WriteFile(path, slices.Concat(before, begin, []byte(text), end, after), 0o644)
}
