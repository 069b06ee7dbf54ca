package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// What happens, and until when it is measured.
const (
	processKilled = "holder's process killed (-9)"
	cablePulled   = "cable pulled"

	holderTold = "the holder's ctx is cancelled"
	lockFree   = "another session has the lock"
)

// A bound is what is promised, and what it depends on.
type bound int

const (
	toldAtOnce   bound = iota // somebody says so, and the driver listens
	toldByPing                // somebody says so, to a driver that does not listen
	toldByBeat                // nobody says so
	freeAtOnce                // the operating system says so to the server
	freeByServer              // nobody says so to the server
)

// within is what is promised for a heartbeat. At once is not a promise in time, so
// there is a tenth of a second for machines and their schedulers.
func (b bound) within(beat time.Duration) time.Duration {
	switch b {
	case toldByPing:
		return beat/2 + atOnce
	case toldByBeat:
		return beat + atOnce
	case freeByServer:
		// Keepalives after two heartbeats, every half, three of them, each of which the
		// server's machine counts in whole seconds.
		return 2*beat + 3*max(beat/2, time.Second) + atOnce
	}
	return atOnce
}

const atOnce = 100 * time.Millisecond

func (b bound) String() string {
	return map[bound]string{
		toldAtOnce:   "at once: the socket tells",
		toldByPing:   "½ heartbeat: the driver does not listen, so a ping finds out",
		toldByBeat:   "1 heartbeat: a ping that is not answered",
		freeAtOnce:   "at once: the kernel closes the socket",
		freeByServer: "3½ heartbeats: `tcp_keepalives_*`, `tcp_user_timeout`",
	}[b]
}

// row is one line of the table.
type row struct {
	Fault, Until, Driver string
	Beat                 time.Duration
	Bound                bound
	Took                 []time.Duration
}

// quantile is the smallest value that a share of all do not exceed.
func (r row) quantile(share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(r.Took))
	return sorted[max(int(share*float64(len(sorted))+0.9999999)-1, 0)]
}

func (r row) worst() time.Duration { return slices.Max(r.Took) }

// table is the table as Markdown.
func table(rows []row, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Postgres %s; times in milliseconds.\n", version)
	for _, until := range []string{holderTold, lockFree} {
		fmt.Fprintf(&b, "\nUntil %s:\n\n", until)
		b.WriteString("| what happens | through | heartbeat | n | median | 95 % | longest | bounded by |\n")
		b.WriteString("|---|---|---|---|---|---|---|---|\n")
		for _, r := range rows {
			if r.Until == until {
				fmt.Fprintf(&b, "| %s | %s | %v | %d | %s | %s | %s | %v |\n", r.Fault, r.Driver, r.Beat, len(r.Took),
					millis(r.quantile(0.5)), millis(r.quantile(0.95)), millis(r.worst()), r.Bound)
			}
		}
	}
	return b.String()
}

// millis is a time in milliseconds, with digits enough to tell small ones apart.
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
