package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
)

// A statement is a parsed statement.
type statement struct {
	kind string
	ops  []string // letters
	keys []int64
	wait *time.Duration
	args []string
}

func (st *statement) String() string {
	if st.kind == "locks" || st.kind == "wait" {
		var b strings.Builder
		b.WriteString(st.kind)
		for i, letter := range st.ops {
			fmt.Fprintf(&b, " %s%d", letter, st.keys[i])
		}
		return b.String()
	}
	return fmt.Sprint(st.kind, st.args)
}

// letterOf returns the letter of a statement of one.sql or wait.sql, or "".
func letterOf(statements map[string]string, sql string) string {
	for letter, statement := range statements {
		if statement == sql {
			return letter
		}
	}
	return ""
}

func parse(sql string, args []string) (*statement, error) {
	st := &statement{args: args}
	one, wait := letterOf(oneSQL, sql), letterOf(waitSQL, sql)
	if one != "" || wait != "" {
		st.kind, st.ops = "locks", []string{one + wait}
		key, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil {
			return nil, err
		}
		st.keys = []int64{key}
		if wait != "" {
			st.kind = "wait"
			millis, err := strconv.Atoi(args[1])
			if err != nil || millis < 1 {
				return nil, fmt.Errorf("lock_timeout %q", args[1])
			}
			d := time.Duration(millis) * time.Millisecond
			st.wait = &d
		}
		return st, nil
	}
	if handshake.IsSetUp(sql) {
		st.kind = "settings"
		return st, nil
	}
	if meeting, prove := handshake.IsMeeting(sql); meeting {
		st.kind, st.args = "meet", nil
		if prove {
			st.args = []string{"prove"}
		}
		return st, nil
	}
	switch sql {
	case handshake.HelloSQL:
		st.kind = "hello"
	case handshake.ProveSQL:
		st.kind = "prove"
	case heldSQL:
		st.kind = "held"
	case pingSQL:
		st.kind = "ping"
	case cancelSQL:
		st.kind = "cancel"
	case holdersSQL:
		st.kind = "holders"
	case queuedSQL:
		st.kind = "queued"
	case awaitedSQL:
		st.kind = "monitor"
	case batchSQL:
		st.kind = "locks"
		for _, text := range strings.Split(strings.Trim(args[0], "{}"), ",") {
			key, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, err
			}
			st.keys = append(st.keys, key)
		}
		st.ops = strings.Split(args[1], "")
	default:
		st.kind = "query"
		st.args = append([]string{sql}, args...)
	}
	if len(st.keys) != len(st.ops) {
		return nil, fmt.Errorf("%d keys for %d letters", len(st.keys), len(st.ops))
	}
	return st, nil
}

// execute runs a statement. server.mu must be held, and is unlocked while waiting.
func (b *backend) execute(st *statement, f fault) (string, error) {
	s := b.server
	prefix := strconv.Itoa(int(b.pid)) + ":"
	if f.swap {
		prefix = "1" + prefix
	}
	if st.kind != "locks" && st.kind != "wait" && f.err != nil {
		return "", f.err
	}
	switch st.kind {
	case "hello":
		return b.hello(), nil
	case "meet":
		proof := ""
		if len(st.args) > 0 {
			proof = "yes"
		}
		return handshake.MeetingReply(b.hello(), proof), nil
	case "settings":
		return "9", nil
	case "prove":
		return "yes", nil
	case "ping":
		if f.reset {
			return prefix + "0", nil
		}
		return prefix + "1", nil
	case "query":
		return "answer to " + strings.Join(st.args, " "), nil
	case "held":
		var locks []string
		for key, l := range s.locks {
			objsubid := 1
			if key.Pair {
				objsubid = 2
			}
			for mode, n := range l.held[b] {
				if n > 0 {
					locks = append(locks, fmt.Sprintf("%d %d %d %s", uint32(uint64(key.ID)>>32), uint32(key.ID), objsubid,
						[]string{"ExclusiveLock", "ShareLock"}[mode]))
				}
			}
		}
		return prefix + strings.Join(locks, ","), nil
	case "holders":
		var pids []string
		if l := s.locks[keyOf(st.args)]; l != nil {
			for holder := range l.held {
				pids = append(pids, strconv.Itoa(int(holder.pid)))
			}
		}
		slices.Sort(pids)
		return prefix + strings.Join(pids, ","), nil
	case "queued":
		if l := s.locks[keyOf(st.args)]; l != nil && len(l.queue) > 0 {
			return prefix + "0", nil
		}
		return prefix + "1", nil
	case "monitor":
		s.monitors++
		var stuck, gone []string
		for _, pid := range strings.Split(strings.Trim(st.args[0], "{}"), ",") {
			if s.backends[mustInt32(pid)] == nil {
				gone = append(gone, pid)
			} else if s.awaited[mustInt32(pid)] {
				stuck = append(stuck, pid)
			}
		}
		return prefix + strings.Join(stuck, ",") + ";" + strings.Join(gone, ","), nil
	case "cancel":
		target := s.backends[mustInt32(st.args[0])]
		if target == nil || target.start != st.args[1] {
			return prefix + "0", nil
		}
		s.logf("%d cancels %d", b.pid, target.pid)
		target.signal()
		return prefix + "1", nil
	case "wait":
		b.timeout = *st.wait
		if f.err != nil && f.done == 0 {
			return "", f.err
		}
		key, mode := lockOf(st.ops[0], st.keys[0])
		err := b.wait(key, mode)
		if err == nil {
			err = f.err
		}
		if err != nil {
			b.waited = &heldLock{key, mode}
			return "", err
		}
		return prefix + "1", nil
	}
	if len(st.ops) > 1 {
		b.waited = nil
	}
	defer func() { b.waited = nil }()

	reply := []byte(prefix)
	for i, letter := range st.ops {
		if f.err != nil && i == f.done {
			if key, mode := lockOf(letter, st.keys[i]); f.half && strings.EqualFold(letter, "q") {
				s.try(b, key, mode)
			}
			return "", f.err
		}
		key, mode := lockOf(letter, st.keys[i])
		var ok bool
		switch {
		case letter == "C":
			ok = true
		case strings.EqualFold(letter, "q"):
			if ok = s.try(b, key, mode); ok {
				s.unlock(b, key, mode)
			}
		case letter == strings.ToUpper(letter):
			ok = s.try(b, key, mode)
		default:
			ok = s.unlock(b, key, mode) && !f.lie
		}
		reply = append(reply, '0')
		if ok {
			reply[len(reply)-1] = '1'
		}
	}
	if f.err != nil {
		return "", f.err
	}
	return string(reply), nil
}

// hello returns the result of hello.sql.
func (b *backend) hello() string {
	return fmt.Sprintf(`{"pid": %d, "start": %q, "standby": %v, "version": "fake", "boot": 1.5}`, b.pid, b.start, b.server.standby)
}

// lockOf is the inverse of letter.
func lockOf(letter string, id int64) (Key, Mode) {
	switch letter {
	case "X", "x":
		return Key{ID: id}, Exclusive
	case "S", "s", "Q":
		return Key{ID: id}, Shared
	case "P", "p":
		return Key{ID: id, Pair: true}, Exclusive
	case "C":
		return Key{}, Exclusive
	case "R", "r", "q":
		return Key{ID: id, Pair: true}, Shared
	}
	panic("no such letter: " + letter)
}

// keyOf is the inverse of Key.columns.
func keyOf(columns []string) Key {
	classid, err1 := strconv.ParseUint(columns[0], 10, 32)
	objid, err2 := strconv.ParseUint(columns[1], 10, 32)
	if err1 != nil || err2 != nil {
		panic(fmt.Sprint(columns))
	}
	return Key{ID: int64(classid<<32 | objid), Pair: columns[2] == "2"}
}

func mustInt32(text string) int32 {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		panic(err)
	}
	return int32(n)
}
