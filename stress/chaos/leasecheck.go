//go:build unix

package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How a history of leases is checked.
//
// It is checked as that of advisory locks, but without their exceptions: no fault frees a
// lease before its holder is notified. There are two others, and only for holders that do
// lose their leases. A process that was stopped may claim a lease until it wakes up. And a
// step of the database's clock ends sessions early, which their holders learn at the next
// renewal. A lease that was released without an error was held until then, always.
//
// The tokens of a lease grow with its holders. The transactions that a lease fenced and that
// committed did so in the order of their tokens, and no other process acquired the lease
// between the fence and the commit. There is no exception to that.
//
// A fault that takes less time than a session has left when it should be renewed costs no
// lease: neither a connection that breaks nor a server that is restarted.

// claimLease sets when a lease of a claim may have been free, and was.
func (r *record) claimLease(c *claim, v *verdict) {
	o := c.op
	if o.outcome == outOK && o.notified == 0 {
		return
	}
	c.freed = r.restAfter(c.until)
	r.endUntold(c)
	if !o.lost() {
		return
	}
	l := loss{op: o, cause: r.explainLease(o)}
	v.losses = append(v.losses, l)
	text := o.notifiedText + o.text
	switch {
	case l.cause == nil && !strings.Contains(text, unrenewed):
		v.wrong = append(v.wrong, fmt.Sprintf("%s lost its leases without a fault: %s", o, text))
	case o.notified == 0 && o.outcome == outUnconfirmed:
		// Held, but the server refused to release it.
	case l.cause != nil && l.cause.Untold == 0 && time.Duration(l.cause.End-l.cause.Begin) < r.spare():
		v.wrong = append(v.wrong, fmt.Sprintf("%s lost its leases because of %q, which took only %v: %s",
			o, l.cause.Name, time.Duration(l.cause.End-l.cause.Begin), text))
	}
}

// unrenewed is the error text of leases that are lost because the server did not respond in
// time. It also happens on an overloaded machine, which does not break a promise.
const unrenewed = "could not be renewed in time"

// endUntold sets c.free and c.cause if the lease may have ended before its holder was
// notified.
func (r *record) endUntold(c *claim) {
	for i := range r.faults {
		f := &r.faults[i]
		if f.Untold == 0 || f.Worker != c.op.worker || f.Untold > c.until || f.End < c.op.requested {
			continue
		}
		free := f.Untold
		if f.Asleep != 0 {
			// When it wakes up, it is not told that it holds a lease that it has lost.
			free = max(free, c.op.checked)
		}
		if free < c.free || c.cause == nil {
			c.free, c.cause = min(c.free, free), f
		}
	}
}

// explainLease returns the fault that most likely made o lose its leases: the longest one
// within the last TTL.
func (r *record) explainLease(o *op) *fault {
	var worst *fault
	for i := range r.faults {
		f := &r.faults[i]
		if f.Name == noKind || f.Begin > o.over() || f.End < o.ended()-int64(r.ttl) || f.Worker != "" && f.Worker != o.worker {
			continue
		}
		if worst == nil || f.weight() > worst.weight() {
			worst = f
		}
	}
	return worst
}

// ended returns when o stopped claiming its locks.
func (o *op) ended() int64 {
	if o.notified != 0 {
		return o.notified
	}
	return o.releasing
}

// noKind is the fault that is none.
const noKind = "none"

// weight compares faults by how much they endanger leases.
func (f *fault) weight() int64 {
	if f.Untold != 0 {
		return 1 << 62
	}
	return f.End - f.Begin
}

// margin is how much earlier than the database the holder of a lease gives it up.
func (r *record) margin() time.Duration { return max(r.ttl/10, time.Second) }

// spare returns how long a fault must take to cost leases. At the latest moment for a
// renewal, it begins during an attempt.
func (r *record) spare() time.Duration {
	return r.ttl - r.margin() - latestRenewal(r.ttl) - r.ttl/6
}

// latestRenewal returns how long after a renewal the next one is due.
func latestRenewal(ttl time.Duration) time.Duration { return ttl / 3 * 12 / 10 }

// leaseNotice returns for how long the holder of a lease may not notice that it was lost
// because of f.
func (r *record) leaseNotice(f *fault) time.Duration {
	const busy = 500 * time.Millisecond // the machine
	if f.Asleep != 0 {
		return busy
	}
	return latestRenewal(r.ttl) + r.ttl/6 + busy
}

// checkTokens checks that the tokens of each lease grow with its holders.
func (r *record) checkTokens(v *verdict) {
	byKey := make(map[string][]*op)
	for _, o := range r.ops {
		if o.token != 0 {
			byKey[o.tokenKey] = append(byKey[o.tokenKey], o)
		}
	}
	for key, ops := range byKey {
		acquired := slices.SortedFunc(slices.Values(ops), func(a, b *op) int { return cmp.Compare(a.acquired, b.acquired) })
		slices.SortFunc(ops, func(a, b *op) int { return cmp.Compare(a.requested, b.requested) })
		var last *op // with the largest token of those that acquired the lease before the next one asked for it
		for _, o := range ops {
			for len(acquired) > 0 && acquired[0].acquired < o.requested {
				if last == nil || acquired[0].token > last.token {
					last = acquired[0]
				}
				acquired = acquired[1:]
			}
			if last != nil && o.token <= last.token {
				v.wrong = append(v.wrong, fmt.Sprintf("the tokens of %s do not grow: %d of %s, then %d of %s", key, last.token, last, o.token, o))
			}
		}
	}
}

// checkWrites checks the transactions that leases fenced.
func (r *record) checkWrites(v *verdict) {
	type id struct {
		worker string
		op     int64
	}
	byID := make(map[id]*op)
	byKey := make(map[string][]*op) // those that acquired
	for _, o := range r.ops {
		byID[id{o.worker, o.id}] = o
		if o.acquired != 0 {
			for _, key := range o.keys {
				byKey[key] = append(byKey[key], o)
			}
		}
	}
	for _, ops := range byKey {
		slices.SortFunc(ops, func(a, b *op) int { return cmp.Compare(a.acquired, b.acquired) })
	}
	newest := make(map[string]logged)
	for _, w := range r.log {
		if last, ok := newest[w.Name]; ok && w.Token < last.Token {
			v.wrong = append(v.wrong, fmt.Sprintf("a stale fenced write of %s#%d to %s: number %d with token %d, after number %d of %s#%d with token %d",
				w.Worker, w.Op, w.Name, w.Number, w.Token, last.Number, last.Worker, last.Op, last.Token))
		} else {
			newest[w.Name] = w
		}
		o := byID[id{w.Worker, w.Op}]
		if o == nil || o.fenced == 0 || o.token != w.Token || o.tokenKey != w.Name {
			v.wrong = append(v.wrong, fmt.Sprintf("the write %+v is not that of %v", w, o))
			continue
		}
		o.logged = true
		v.wrong = append(v.wrong, o.overtaken(byKey)...)
	}
	for _, o := range r.ops {
		switch {
		case o.wroteOutcome == outOK && !o.logged:
			v.wrong = append(v.wrong, fmt.Sprintf("the write of %s was committed, but is gone", o))
		case o.wroteOutcome == outLost && o.outcome == outOK && o.wrote < o.releasing:
			v.wrong = append(v.wrong, fmt.Sprintf("%s released its leases without an error, after Fence had reported their loss: %s", o, o.wroteText))
		}
	}
}

// overtaken returns the operations that acquired a lease of o while it fenced a transaction
// that committed.
func (o *op) overtaken(byKey map[string][]*op) (wrong []string) {
	for _, key := range o.keys {
		ops := byKey[key]
		first, _ := slices.BinarySearchFunc(ops, o.acquired, func(p *op, t int64) int { return cmp.Compare(p.acquired, t) })
		for _, p := range ops[first:] {
			if p.acquired >= o.commit {
				break
			}
			// One that began before o acquired the lease may have been granted it before,
			// and have learned that late.
			if p != o && (p.requested > o.acquired || p.tokenKey == key && o.tokenKey == key && p.token > o.token) {
				wrong = append(wrong, fmt.Sprintf("%s was overtaken: it fenced a transaction at %d, which it committed at %d, but %s acquired %s at %d",
					o, o.fenced, o.commit, p, key, p.acquired))
			}
		}
	}
	return wrong
}

// leases returns the counts of a round.
func (r *record) leases(ended int) Leases {
	l := Leases{Wrote: len(r.log), Ended: ended}
	for _, o := range r.ops {
		if r.ttl != 0 && o.acquired != 0 {
			l.Takes++
		}
	}
	return l
}
