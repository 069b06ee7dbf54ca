//go:build unix

package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// A history is a directory with a file for each worker, and one for the faults. A file
// has an event on each line, written with a single write before the worker continues:
// what was passed to the kernel survives a kill -9. A worker writes what it is about to
// do before it does it, and the outcome afterwards. So a killed worker is judged only by
// what it had written.

// An event is one line of a history. Times are in nanoseconds of the machine's
// monotonic clock, which is the same for all processes.
type event struct {
	Time int64     `json:"t"`
	Kind eventKind `json:"e"`
	Op   int64     `json:"op,omitempty"` // the number of the operation in its worker

	// For request.
	Verb   string   `json:"verb,omitempty"`
	Keys   []string `json:"keys,omitempty"`
	Shared bool     `json:"shared,omitempty"`
	Cancel bool     `json:"cancel,omitempty"` // its ctx will be canceled while it waits

	PID   int32  `json:"pid,omitempty"`   // for acquired: the backend that holds the locks, if known
	Token int64  `json:"token,omitempty"` // for acquired: the token of a lease, if known
	Key   string `json:"key,omitempty"`   // for acquired: the key that has Token

	Outcome outcome `json:"outcome,omitempty"` // for failed, released and wrote
	Text    string  `json:"text,omitempty"`    // for failed, notified, released, wrote and wrong: the error
	End     int64   `json:"end,omitempty"`     // for slept
}

type eventKind string

const (
	evRequest   eventKind = "request"   // about to ask for locks
	evAcquired  eventKind = "acquired"  // acquired
	evFailed    eventKind = "failed"    // not acquired
	evNotified  eventKind = "notified"  // the holder was notified that the locks are lost
	evReleasing eventKind = "releasing" // about to release them
	evReleased  eventKind = "released"  // the release returned
	evChecked   eventKind = "checked"   // just before the holder was told that it holds the lease
	evFenced    eventKind = "fenced"    // a transaction is fenced
	evCommit    eventKind = "commit"    // about to commit that
	evWrote     eventKind = "wrote"     // the transaction is over
	evSlept     eventKind = "slept"     // the process did not run until End
	evWrong     eventKind = "wrong"     // the worker saw a broken promise
)

// An outcome classifies an error.
type outcome string

const (
	outOK          outcome = "ok"
	outHeld        outcome = "held"        // another operation holds the lock
	outCanceled    outcome = "canceled"    // ctx ended the wait
	outDown        outcome = "unavailable" // no session could be opened
	outFull        outcome = "full"        // the lock table is full
	outDeadlock    outcome = "deadlock"
	outBroken      outcome = "broken" // the connection of the worker's transaction broke
	outLost        outcome = "lost"
	outUnconfirmed outcome = "unconfirmed"
	outOther       outcome = "other" // an unexpected error
)

// A recorder writes the history of a worker.
type recorder struct {
	lastOp atomic.Int64

	mu   sync.Mutex // serializes lines; guards err
	file *os.File
	err  error // the first failure
}

func newRecorder(path string) (*recorder, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &recorder{file: file}, nil
}

// op returns the number of a new operation.
func (r *recorder) op() int64 { return r.lastOp.Add(1) }

func (r *recorder) write(e event) {
	line, err := json.Marshal(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	r.err = errors.Join(r.err, err)
}

// wrong records a broken promise.
func (r *recorder) wrong(op int64, format string, args ...any) {
	r.write(event{Time: now(), Kind: evWrong, Op: op, Text: fmt.Sprintf(format, args...)})
}

func (r *recorder) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.file.Close())
}

// An op is an operation of a worker: it acquires, holds and releases some locks. The
// times of events that did not happen are 0.
type op struct {
	worker       string
	id           int64
	verb         string
	keys         []string
	shared       bool
	cancel       bool
	pid          int32
	requested    int64
	acquired     int64
	notified     int64
	releasing    int64
	released     int64 // with the result in outcome
	failed       int64 // with the result in outcome
	outcome      outcome
	text         string
	notifiedText string
	died         int64 // when its worker was killed during the operation

	// For leases.
	token        int64  // of a lease, or 0
	tokenKey     string // the key that has it, if there are several
	checked      int64  // certainly held then
	fenced       int64
	commit       int64
	wrote        int64
	wroteOutcome outcome
	wroteText    string
	logged       bool // the database has its write
}

// transaction reports whether a transaction holds the locks. It is not notified of a
// loss; the loss rolls back what it did.
func (o *op) transaction() bool { return isTx(o.verb) }

// over returns when the operation ended or its worker died, or 0.
func (o *op) over() int64 { return max(o.failed, o.released, o.died) }

func (o *op) String() string {
	mode := "exclusive"
	if o.shared {
		mode = "shared"
	}
	return fmt.Sprintf("%s#%d %s %v %s", o.worker, o.id, o.verb, o.keys, mode)
}

// A life is a worker process, from its start to its exit.
type life struct {
	worker string
	killed int64 // just before it was killed; 0 if it was not
}

// A history is what the workers recorded.
type history struct {
	ops    []*op
	wrong  []string // the broken promises that they saw
	sleeps []fault  // times in which a process did not run
}

// unexplained returns the sleeps that no fault caused.
func unexplained(sleeps, faults []fault) []fault {
	return slices.DeleteFunc(slices.Clone(sleeps), func(s fault) bool {
		return slices.ContainsFunc(faults, func(f fault) bool {
			return f.Asleep != 0 && f.Worker == s.Worker && s.Begin < f.Asleep && f.Begin < s.End
		})
	})
}

// readHistory reads what the workers recorded.
func readHistory(dir string, lives []life) (*history, error) {
	h := new(history)
	for _, l := range lives {
		if err := h.readLife(filepath.Join(dir, l.worker+".jsonl"), l); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(h.ops, func(a, b *op) int { return int(a.requested - b.requested) })
	return h, nil
}

func (h *history) readLife(path string, l life) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && l.killed != 0 {
		return nil // before it wrote anything
	}
	if err != nil {
		return err
	}
	defer file.Close()
	byID := make(map[int64]*op)
	var ops []*op
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	var torn error // an incomplete line, allowed only as the last line of a killed worker
	for lines.Scan() {
		if torn != nil {
			return torn
		}
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			torn = fmt.Errorf("chaos: %s: %q: %w", path, lines.Text(), err)
			if l.killed == 0 {
				return torn
			}
			continue
		}
		switch e.Kind {
		case evWrong:
			h.wrong = append(h.wrong, fmt.Sprintf("%s#%d: %s", l.worker, e.Op, e.Text))
			continue
		case evSlept:
			h.sleeps = append(h.sleeps, fault{Name: noFault, Worker: l.worker, Begin: e.Time, Untold: e.Time, Asleep: e.End, End: e.End, Part: true})
			continue
		}
		o := byID[e.Op]
		if (o == nil) != (e.Kind == evRequest) {
			return fmt.Errorf("chaos: %s: %q does not fit the lines before it", path, lines.Text())
		}
		switch e.Kind {
		case evRequest:
			o = &op{worker: l.worker, id: e.Op, verb: e.Verb, keys: e.Keys, shared: e.Shared, cancel: e.Cancel, requested: e.Time}
			byID[e.Op] = o
			ops = append(ops, o)
		case evAcquired:
			o.acquired, o.pid, o.token, o.tokenKey = e.Time, e.PID, e.Token, e.Key
		case evFailed:
			o.failed, o.outcome, o.text = e.Time, e.Outcome, e.Text
		case evNotified:
			o.notified, o.notifiedText = e.Time, e.Text
		case evReleasing:
			o.releasing = e.Time
		case evReleased:
			o.released, o.outcome, o.text = e.Time, e.Outcome, e.Text
		case evChecked:
			o.checked = e.Time
		case evFenced:
			o.fenced = e.Time
		case evCommit:
			o.commit = e.Time
		case evWrote:
			o.wrote, o.wroteOutcome, o.wroteText = e.Time, e.Outcome, e.Text
		default:
			return fmt.Errorf("chaos: %s: %q is not an event", path, lines.Text())
		}
	}
	for _, o := range ops {
		switch {
		case o.over() != 0:
		case l.killed != 0:
			o.died = l.killed
		default:
			h.wrong = append(h.wrong, fmt.Sprintf("%s never ended", o))
		}
	}
	h.ops = append(h.ops, ops...)
	return lines.Err()
}
