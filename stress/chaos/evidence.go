//go:build unix

package chaos

import (
	"path/filepath"
	"time"
)

// Programs that cause other faults than a Round record and check their histories with the
// same code.

// A Fault is something that a program did to the system. Ends is 0 if no holder can lose
// a lock before it is notified.
type Fault = fault

// Now returns the time of a history: nanoseconds of a clock that all processes of the
// machine share.
func Now() int64 { return now() }

// A Recorder writes the history of a process that acquires and releases locks. Each
// method writes one event before it returns.
type Recorder struct{ history *recorder }

// NewRecorder creates the history of a worker in a directory.
func NewRecorder(dir, worker string) (*Recorder, error) {
	r, err := newRecorder(filepath.Join(dir, worker+".jsonl"))
	if err != nil {
		return nil, err
	}
	return &Recorder{r}, nil
}

// Request records that a lock is about to be asked for exclusively, and returns the number
// of the operation.
func (r *Recorder) Request(verb, key string) (op int64) {
	op = r.history.op()
	r.history.write(event{Time: now(), Kind: evRequest, Op: op, Verb: verb, Keys: []string{key}})
	return op
}

// Acquired records that the lock was acquired, with the token of a lease or 0.
func (r *Recorder) Acquired(op int64, key string, token int64) {
	r.history.write(event{Time: now(), Kind: evAcquired, Op: op, Key: key, Token: token})
}

// Failed records why the lock was not acquired.
func (r *Recorder) Failed(op int64, err error) {
	r.history.write(event{Time: now(), Kind: evFailed, Op: op, Outcome: outcomeOf(err), Text: err.Error()})
}

// Notified records that the holder was notified of the loss of the lock.
func (r *Recorder) Notified(op int64, err error) {
	r.history.write(event{Time: now(), Kind: evNotified, Op: op, Text: err.Error()})
}

// Releasing records that the holder is about to release the lock.
func (r *Recorder) Releasing(op int64) {
	r.history.write(event{Time: now(), Kind: evReleasing, Op: op})
}

// Released records the result of the release.
func (r *Recorder) Released(op int64, err error) {
	e := event{Time: now(), Kind: evReleased, Op: op, Outcome: outcomeOf(err)}
	if err != nil {
		e.Text = err.Error()
	}
	r.history.write(e)
}

// Wrong records a broken promise.
func (r *Recorder) Wrong(op int64, format string, args ...any) { r.history.wrong(op, format, args...) }

// Close closes the history, and returns the first error of writing it.
func (r *Recorder) Close() error { return r.history.close() }

// Evidence is what is known about processes that have ended and the faults they met.
type Evidence struct {
	Dir     string   // of the histories, and of drawings of wrong ones
	Workers []string // that wrote a history
	Faults  []Fault
	Rests   []int64       // moments when no lock was held
	Notice  time.Duration // limit for a holder to notice a loss
	AnyLoss bool          // a loss needs no fault to explain it
}

// A Hold is an operation that asked for a lock. Times that do not apply are 0.
type Hold struct {
	Worker, Verb, Key string
	Token             int64
	Requested         int64
	Acquired          int64
	Until             int64 // when the holder was notified of a loss, or began to release the lock
	Lost              bool
	Fault             *Fault // that explains the loss, or nil
}

// An Overlap is a time in which two holders claimed the same lock, because the first had
// lost it by a fault and was not notified yet.
type Overlap struct {
	Fault *Fault
	Long  time.Duration
}

// Findings are the result of a check.
type Findings struct {
	Wrong    []string // broken promises
	Holds    []Hold   // by the time of the request
	Overlaps []Overlap
}

// Check reads the histories and checks them. At any time each lock has one holder, which
// holds it until it releases it or is notified of its loss. Only a lock that was lost may
// have ended earlier, at the Ends of a fault. Tokens grow with each holder.
func (e Evidence) Check() (*Findings, error) {
	lives := make([]life, len(e.Workers))
	for i, worker := range e.Workers {
		lives[i].worker = worker
	}
	history, err := readHistory(e.Dir, lives)
	if err != nil {
		return nil, err
	}
	r := record{ops: history.ops, faults: e.Faults, rests: e.Rests, notice: e.Notice, anyLoss: e.AnyLoss}
	v := r.check(e.Dir)
	f := &Findings{Wrong: append(history.wrong, v.wrong...)}
	lost := make(map[*op]*Fault)
	for _, l := range v.losses {
		lost[l.op] = l.cause
	}
	for _, o := range history.ops {
		h := Hold{Worker: o.worker, Verb: o.verb, Key: o.keys[0], Token: o.token, Requested: o.requested, Acquired: o.acquired, Until: o.releasing}
		if o.notified != 0 {
			h.Until = min(o.notified, o.releasing)
		}
		h.Fault, h.Lost = lost[o]
		f.Holds = append(f.Holds, h)
	}
	for _, o := range v.overlaps {
		f.Overlaps = append(f.Overlaps, Overlap{o.cause, o.long})
	}
	return f, nil
}
