package top

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/inspect"
)

// Limits of the statements that a database is asked to run.
const (
	// readLimit is how long connecting and a reading may take.
	readLimit = 10 * time.Second

	// endLimit is how long ending sessions may take, with the reading before it.
	endLimit = 30 * time.Second

	// goneLimit is how long to wait until a terminated session is gone.
	goneLimit = 5 * time.Second
)

// A Database is a database to show.
type Database struct {
	Name  string // as it was given, if there are several
	Where string // its server, such as "alice@db1:5432"

	// Open opens a session. Run calls it again when the session has ended.
	Open feed.OpenFunc

	// LockNames are names of advisory locks, to show them in place of their hash, or nil.
	LockNames iter.Seq[string]

	// ReadOnly is why no session of it may be ended, such as "--read-only", or "".
	ReadOnly string
}

// A picture is one reading of a database.
type picture struct {
	*inspect.Snapshot
	sessions []inspect.Session
	all      []*inspect.Tree
	trees    []*inspect.Tree // of all, those with a selected session, if there are filters

	filters   []inspect.Filter // the ones that were read with
	matching  []inspect.Lock   // the locks that match them
	selected  map[int32]bool   // the sessions that hold or await them; nil without filters
	filterErr error            // why the filters select nothing
}

// A database is a Database that is read, and what the model knows of it. All fields below
// the reader belong to the model.
type database struct {
	Database
	source  *feed.Source
	feed    *feed.Feed[*picture]
	filters atomic.Pointer[[]inspect.Filter] // for the reader

	frame    feed.Frame[*picture] // the newest, perhaps with an error
	picture  *picture             // the last one that could be read, or nil
	readAt   time.Time            // when it was read
	history  history
	views    [viewCount]list
	marked   map[sessionKey]bool
	expanded map[rowKey]bool // folds that were opened
	closed   map[rowKey]bool // trees that were closed
	since    time.Time       // since when somebody waits, or zero
}

// newDatabase returns a database that is read in an interval once its feed runs.
func newDatabase(d Database, every time.Duration) *database {
	db := &database{
		Database: d,
		source:   feed.NewSource(d.Open),
		marked:   map[sessionKey]bool{},
		expanded: map[rowKey]bool{},
		closed:   map[rowKey]bool{},
	}
	db.feed = feed.New(db.read, every)
	return db
}

// lost reports whether the last reading failed.
func (d *database) lost() bool { return d.frame.Err != nil }

// read reads a picture. It is a ReadFunc.
func (d *database) read(ctx context.Context) (*picture, time.Duration, error) {
	p := new(picture)
	if filters := d.filters.Load(); filters != nil {
		p.filters = *filters
	}
	cost, err := within(ctx, readLimit, func(ctx context.Context) (time.Duration, error) {
		return d.source.Do(ctx, p.read)
	})
	if err != nil {
		return nil, cost, err
	}
	render.NameKeys(p.eachWait(), func(yield func(*inspect.Lock) bool) {
		for i := range p.Locks {
			if !yield(&p.Locks[i]) {
				return
			}
		}
	}, d.LockNames)
	p.all = p.Forest()
	switch {
	case len(p.filters) == 0:
		p.trees = p.all
	case len(p.selected) > 0:
		var pids []int32
		for pid := range p.selected {
			pids = append(pids, pid)
		}
		p.trees = p.Forest(pids...)
	}
	return p, cost, nil
}

// eachWait returns the awaited and held locks of all pairs.
func (p *picture) eachWait() []*inspect.Lock {
	var locks []*inspect.Lock
	for i := range p.Pairs {
		pair := &p.Pairs[i]
		if len(locks) == 0 || locks[len(locks)-1] != pair.Lock {
			locks = append(locks, pair.Lock)
		}
	}
	for i := range p.Locks {
		if p.Locks[i].HasKey {
			locks = append(locks, &p.Locks[i])
		}
	}
	return locks
}

// read reads the parts of the picture.
func (p *picture) read(ctx context.Context, q driver.Querier) (err error) {
	if p.Snapshot, err = inspect.ReadSnapshot(ctx, q); err != nil {
		return err
	}
	if p.sessions, err = inspect.Sessions(ctx, q); err != nil || len(p.filters) == 0 {
		return err
	}
	p.selected = map[int32]bool{}
	p.matching, err = inspect.Locks(ctx, q, p.filters...)
	if errors.Is(err, inspect.ErrFilter) {
		p.filterErr = err
		return nil
	}
	for _, l := range p.matching {
		p.selected[l.PID] = true
		if l.LeaderPID != 0 {
			p.selected[l.LeaderPID] = true
		}
	}
	return err
}

// within calls f with a limit on its time, and describes an error that is due to it.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	value, err := f(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer within %v", limit)
	}
	return value, err
}

// An action is what is done to sessions.
type action int

const (
	cancelAction action = iota
	terminateAction
)

func (a action) String() string { return [...]string{"cancel", "terminate"}[a] }

// ending returns the words of an action.
func (a action) ending() render.Ending {
	return render.Ending{Terminate: a == terminateAction, Wait: a == terminateAction}
}

// end cancels or terminates sessions, or reports what would be done. The statement that
// signals compares each of them again. A database that is read only refuses.
func (d *database) end(ctx context.Context, a action, victims []inspect.Victim, dryRun bool) ([]inspect.Outcome, error) {
	if d.ReadOnly != "" {
		return nil, errors.New("nothing is ended: " + d.ReadOnly)
	}
	return within(ctx, endLimit, func(ctx context.Context) (outcomes []inspect.Outcome, err error) {
		_, err = d.source.Do(ctx, func(ctx context.Context, q driver.Querier) (err error) {
			end := inspect.Cancel
			opts := []inspect.EndOption{inspect.WaitGone(goneLimit)}
			if a == terminateAction {
				end = inspect.Terminate
			}
			if dryRun {
				opts = append(opts, inspect.DryRun())
			}
			outcomes, err = end(ctx, q, victims, opts...)
			return err
		})
		return outcomes, err
	})
}

// victims returns sessions as they are in the picture, to be ended. One that blocks others
// is ended only while it still blocks one of them.
func (p *picture) victims(sessions []*inspect.Session) []inspect.Victim {
	var victims []inspect.Victim
	for _, s := range sessions {
		var pairs []inspect.Pair
		for i := range p.Pairs {
			if keyOf(p.Pairs[i].Blocking) == keyOf(s) {
				pairs = append(pairs, p.Pairs[i])
			}
		}
		switch blockers := inspect.BlockersOf(pairs); {
		case len(blockers) > 0:
			victims = append(victims, blockers...)
		default:
			victims = append(victims, p.victim(s))
		}
	}
	return victims
}

// victim returns a session that blocks nobody.
func (p *picture) victim(s *inspect.Session) inspect.Victim {
	// If a role may not see when a session began, only its locks identify it.
	if s.BackendStart.IsZero() {
		for i := range p.Locks {
			if p.Locks[i].PID == s.PID && p.Locks[i].Session.Prepared == s.Prepared {
				return inspect.SessionsOf(p.Locks[i : i+1])[0]
			}
		}
	}
	return inspect.VictimsOf([]inspect.Session{*s})[0]
}

// find returns the session with a key in the picture, or nil.
func (p *picture) find(key sessionKey) *inspect.Session {
	if i := slices.IndexFunc(p.sessions, func(s inspect.Session) bool { return keyOf(&s) == key }); i >= 0 {
		return &p.sessions[i]
	}
	for i := range p.Locks {
		if keyOf(p.Locks[i].Session) == key {
			return p.Locks[i].Session
		}
	}
	return nil
}

// A sessionKey identifies a session or a prepared transaction. A process with the same PID
// that began at another time is another session.
type sessionKey struct {
	pid   int32
	start int64 // in microseconds; 0 if hidden
	gid   string
}

func keyOf(s *inspect.Session) sessionKey {
	k := sessionKey{pid: s.PID}
	if !s.BackendStart.IsZero() {
		k.start = s.BackendStart.UnixMicro()
	}
	if s.Prepared != nil {
		k.gid = s.Prepared.GID
	}
	return k
}
