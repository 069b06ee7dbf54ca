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

// A history is a folder with a file for each worker, and one for what was done to
// them. A file has an event on each line, written with a single write before the
// worker goes on: what the kernel has been given outlives a kill -9. What a worker
// is about to do is written before it does it, and what came of it afterwards; so
// of a worker that was killed nothing is believed but what it had written.

// An event is one line of a history. Times are in nanoseconds of the machine's
// monotonic clock, which is the same for all processes.
type event struct {
	Time int64     `json:"t"`
	Kind eventKind `json:"e"`
	Op   int64     `json:"op,omitempty"` // which operation of the worker's

	// Of ask.
	Verb   string   `json:"verb,omitempty"`
	Keys   []string `json:"keys,omitempty"`
	Shared bool     `json:"shared,omitempty"`
	Cancel bool     `json:"cancel,omitempty"` // its ctx is to be cancelled while it waits

	PID     int32   `json:"pid,omitempty"`     // of got: the backend that holds it, where that is known
	Outcome outcome `json:"outcome,omitempty"` // of no and given
	Text    string  `json:"text,omitempty"`    // of no, told, given and wrong: what was said
}

type eventKind string

const (
	evAsk    eventKind = "ask"    // about to ask for locks
	evGot    eventKind = "got"    // they are had
	evNo     eventKind = "no"     // they are not
	evTold   eventKind = "told"   // the holder was told that they are lost
	evGiving eventKind = "giving" // about to give them back
	evGiven  eventKind = "given"  // that has returned
	evWrong  eventKind = "wrong"  // the worker saw a promise broken
)

// An outcome is what an error stands for.
type outcome string

const (
	outOK          outcome = "ok"
	outHeld        outcome = "held"        // another holds it
	outCancelled   outcome = "cancelled"   // ctx ended the wait
	outDown        outcome = "unavailable" // no session to be had
	outFull        outcome = "full"        // the lock table is
	outDeadlock    outcome = "deadlock"
	outBroken      outcome = "broken" // the connection of a transaction of the worker's own
	outLost        outcome = "lost"
	outUnconfirmed outcome = "unconfirmed"
	outOther       outcome = "other" // which is wrong
)

// A recorder writes the history of a worker.
type recorder struct {
	lastOp atomic.Int64

	mu   sync.Mutex // one line at a time
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

// op is the number of a new operation.
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

// wrong records a promise that the worker saw broken.
func (r *recorder) wrong(op int64, format string, args ...any) {
	r.write(event{Time: now(), Kind: evWrong, Op: op, Text: fmt.Sprintf(format, args...)})
}

func (r *recorder) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.file.Close())
}

// An op is an operation of a worker: the taking of some locks, the holding, and
// the giving back. Times that did not come are 0.
type op struct {
	worker   string
	id       int64
	verb     string
	keys     []string
	shared   bool
	cancel   bool
	pid      int32
	ask      int64
	got      int64
	told     int64
	giving   int64
	given    int64 // with what came of it in outcome
	no       int64 // likewise
	outcome  outcome
	text     string
	toldText string
	died     int64 // when its worker was killed, if the operation was not over
}

// transaction reports whether the locks are a transaction's: those are not told
// of a loss, and what they guard is undone by it.
func (o *op) transaction() bool { return isTx(o.verb) }

// over is when the operation ended, or since when it cannot go on.
func (o *op) over() int64 { return max(o.no, o.given, o.died) }

func (o *op) String() string {
	mode := "exclusive"
	if o.shared {
		mode = "shared"
	}
	return fmt.Sprintf("%s#%d %s %v %s", o.worker, o.id, o.verb, o.keys, mode)
}

// A life is a worker process, from its beginning to its end.
type life struct {
	worker string
	killed int64 // when it was about to be killed, 0 for never
}

// readHistory reads the operations of the workers, and what they saw broken.
func readHistory(dir string, lives []life) (ops []*op, wrong []string, err error) {
	for _, l := range lives {
		o, w, err := readLife(filepath.Join(dir, l.worker+".jsonl"), l)
		if err != nil {
			return nil, nil, err
		}
		ops, wrong = append(ops, o...), append(wrong, w...)
	}
	slices.SortFunc(ops, func(a, b *op) int { return int(a.ask - b.ask) })
	return ops, wrong, nil
}

func readLife(path string, l life) (ops []*op, wrong []string, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && l.killed != 0 {
		return nil, nil, nil // before it wrote anything
	}
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	byID := make(map[int64]*op)
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	var torn error // a line that was cut off, which can only be the last one of a killed worker
	for lines.Scan() {
		if torn != nil {
			return nil, nil, torn
		}
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			torn = fmt.Errorf("chaos: %s: %q: %w", path, lines.Text(), err)
			if l.killed == 0 {
				return nil, nil, torn
			}
			continue
		}
		if e.Kind == evWrong {
			wrong = append(wrong, fmt.Sprintf("%s#%d: %s", l.worker, e.Op, e.Text))
			continue
		}
		o := byID[e.Op]
		if (o == nil) != (e.Kind == evAsk) {
			return nil, nil, fmt.Errorf("chaos: %s: %q does not fit what stands before it", path, lines.Text())
		}
		switch e.Kind {
		case evAsk:
			o = &op{worker: l.worker, id: e.Op, verb: e.Verb, keys: e.Keys, shared: e.Shared, cancel: e.Cancel, ask: e.Time}
			byID[e.Op] = o
			ops = append(ops, o)
		case evGot:
			o.got, o.pid = e.Time, e.PID
		case evNo:
			o.no, o.outcome, o.text = e.Time, e.Outcome, e.Text
		case evTold:
			o.told, o.toldText = e.Time, e.Text
		case evGiving:
			o.giving = e.Time
		case evGiven:
			o.given, o.outcome, o.text = e.Time, e.Outcome, e.Text
		default:
			return nil, nil, fmt.Errorf("chaos: %s: %q is no event", path, lines.Text())
		}
	}
	for _, o := range ops {
		switch {
		case o.over() != 0:
		case l.killed != 0:
			o.died = l.killed
		default:
			wrong = append(wrong, fmt.Sprintf("%s never ended", o))
		}
	}
	return ops, wrong, lines.Err()
}
