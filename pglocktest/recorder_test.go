package pglocktest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A recorder is a testing.TB that records a failure without failing the test.
type recorder struct {
	testing.TB // for methods that do not affect the outcome

	mu      sync.Mutex
	failed  bool
	skipped bool
	output  strings.Builder
	atEnd   []func()
}

// record runs a check and returns its outcome.
func record(t testing.TB, run func(testing.TB)) *recorder {
	r := &recorder{TB: t}
	r.apart(func() { run(r) })
	for {
		r.mu.Lock()
		n := len(r.atEnd)
		if n == 0 {
			r.mu.Unlock()
			return r
		}
		last := r.atEnd[n-1]
		r.atEnd = r.atEnd[:n-1]
		r.mu.Unlock()
		r.apart(last)
	}
}

// apart runs f in a goroutine, which f may end.
func (r *recorder) apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (r *recorder) say(fail bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || fail
	r.output.WriteString(text + "\n")
}

func (r *recorder) Helper()                   {}
func (r *recorder) Context() context.Context  { return context.Background() }
func (r *recorder) Cleanup(f func())          { r.mu.Lock(); r.atEnd = append(r.atEnd, f); r.mu.Unlock() }
func (r *recorder) Log(args ...any)           { r.say(false, fmt.Sprint(args...)) }
func (r *recorder) Logf(f string, a ...any)   { r.say(false, fmt.Sprintf(f, a...)) }
func (r *recorder) Error(args ...any)         { r.say(true, fmt.Sprint(args...)) }
func (r *recorder) Errorf(f string, a ...any) { r.say(true, fmt.Sprintf(f, a...)) }
func (r *recorder) Fatal(args ...any)         { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); runtime.Goexit() }
func (r *recorder) FailNow()                  { r.Fatal("FailNow") }
func (r *recorder) Fail()                     { r.Error("Fail") }
func (r *recorder) Skip(args ...any)          { r.Log(args...); r.SkipNow() }
func (r *recorder) Skipf(f string, a ...any)  { r.Logf(f, a...); r.SkipNow() }

func (r *recorder) SkipNow() {
	r.mu.Lock()
	r.skipped = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// outcome returns whether the check failed, and its messages. A goroutine of the check
// may still be running, and add to them.
func (r *recorder) outcome() (failed bool, output string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed, r.output.String()
}
