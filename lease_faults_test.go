package pglock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// A faultySource opens sessions on which statements fail on the way. It shows what happens
// if a connection breaks after a statement was sent: it may have run, or may run later.
type faultySource struct {
	driver.Source
	mu    sync.Mutex
	fault func(sql string) fault
	then  func() // called after the fault after

	terminate func(pid uint32) // terminates a backend, for the fault terminated

	deferred sync.WaitGroup // counts the statements that run later
}

// A fault is what happens to a statement and to its session.
type fault int

const (
	none       fault = iota
	before           // the session breaks before the statement runs
	after            // it runs, but its reply is lost with the session
	deferred         // the session breaks at once, and the statement runs half a second later
	open             // it runs, but its reply is lost, and it is committed a moment later
	terminated       // the backend is terminated before it runs
	crashed          // a pooler reports that it lost its connection to the server
)

var errBroken = errors.New("the connection broke")

// once injects f into the next statement that contains text. The test fails if there is none.
func (s *faultySource) once(t *testing.T, text string, f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := false
	s.fault = func(sql string) fault {
		if done || !strings.Contains(sql, text) {
			return none
		}
		done = true
		return f
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !done {
			t.Errorf("no statement with %q", text)
		}
	})
}

func (s *faultySource) Open(ctx context.Context) (driver.Session, error) {
	inner, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &faultySession{Session: inner, source: s}, nil
}

type faultySession struct {
	driver.Session
	source *faultySource
}

func (s *faultySession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	return s.run(sql, func(session driver.Session, ctx context.Context) (string, error) {
		return session.QueryText(ctx, sql, args...)
	}, ctx)
}

func (s *faultySession) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	return s.run(sql, func(session driver.Session, ctx context.Context) (string, error) {
		return session.QueryTextSimple(ctx, sql)
	}, ctx)
}

func (s *faultySession) run(sql string, send func(driver.Session, context.Context) (string, error), ctx context.Context) (string, error) {
	s.source.mu.Lock()
	f := none
	if s.source.fault != nil {
		f = s.source.fault(sql)
	}
	s.source.mu.Unlock()
	switch f {
	case before:
		s.Session.Close()
		return "", errBroken
	case crashed:
		s.Session.Close()
		return "", &pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "server conn crashed?"}
	case after:
		if _, err := send(s.Session, ctx); err != nil {
			return "", err
		}
		if s.source.then != nil {
			s.source.then()
		}
		s.Session.Close()
		return "", errBroken
	case terminated:
		s.source.terminate(s.PID())
		return send(s.Session, ctx)
	case open:
		inner := s.Session
		if err := inner.Exec(ctx, "BEGIN"); err != nil {
			return "", err
		}
		if _, err := send(inner, ctx); err != nil {
			return "", err
		}
		s.Session = brokenSession{}
		s.source.deferred.Add(1)
		go func() {
			defer s.source.deferred.Done()
			defer inner.Close()
			time.Sleep(200 * time.Millisecond)
			_ = inner.Exec(context.Background(), "COMMIT")
		}()
		return "", errBroken
	case deferred:
		inner := s.Session
		s.Session = brokenSession{}
		s.source.deferred.Add(1)
		go func() {
			defer s.source.deferred.Done()
			defer inner.Close()
			time.Sleep(500 * time.Millisecond)
			_, _ = send(inner, context.Background())
		}()
		return "", errBroken
	}
	return send(s.Session, ctx)
}

// A brokenSession is a session that has ended.
type brokenSession struct{ driver.Session }

func (brokenSession) QueryText(context.Context, string, ...string) (string, error) {
	return "", errBroken
}

func (brokenSession) QueryTextSimple(context.Context, string) (string, error) { return "", errBroken }
func (brokenSession) Watch(context.Context) error                             { return errBroken }
func (brokenSession) Close() error                                            { return nil }
func (brokenSession) PID() uint32                                             { return 0 }

const (
	taking    = "FROM taken"
	releasing = "WITH returned"
	renewing  = "WITH renewed"
	opening   = "WITH opened"
)

// eventuallyHeld waits until the leases with these names are held, and no others.
func (d *db) eventuallyHeld(names string) {
	d.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		held := strings.Join(d.heldLeases(), " ")
		if held == names {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("held: %q, not %q", held, names)
		}
	}
}

// heldLeases returns the names of the leases that are held, from the table.
func (d *db) heldLeases() []string {
	d.t.Helper()
	rows, err := d.conn.Query(d.t.Context(), "SELECT name FROM pglock.lease WHERE owner IS NOT NULL ORDER BY name")
	must(d.t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(d.t, err)
	return names
}

// If the reply to a take is lost, the lease is held by its handle or by nobody, and its token
// is the one in the table.
func TestLeaseLostReplies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		statement string
		fault     fault
	}{
		"take, before":    {taking, before},
		"take, after":     {taking, after},
		"take, later":     {taking, deferred},
		"release, before": {releasing, before},
		"release, after":  {releasing, after},
		"release, later":  {releasing, deferred},
		"release, open":   {releasing, open},
		"renew, before":   {renewing, before},
		"renew, after":    {renewing, after},
		"renew, later":    {renewing, deferred},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.installLeases()
			source := &faultySource{Source: d.source()}
			locker, other := leaseLocker(t, source), leaseLocker(t, d.source())
			keep, err := locker.Lock(t.Context(), pglock.Name("keep"), pglock.Wait(10*time.Second))
			must(t, err)
			var last int64
			for round := range 3 {
				if round == 1 { // now the row is there
					source.once(t, test.statement, test.fault)
				}
				lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
				must(t, err)
				if owner, token := d.lease("a"); owner == "" || token != lock.Token() || token <= last {
					t.Fatalf("the table says %q, %d, not %d, after %d", owner, token, lock.Token(), last)
				}
				last = lock.Token()
				must(t, lock.Unlock())
				if test.statement == renewing {
					time.Sleep(time.Second)
				}
			}
			source.deferred.Wait()
			// What has landed late is returned at a renewal.
			d.eventuallyHeld("keep")
			lock, err := other.TryLock(t.Context(), pglock.Name("a"))
			must(t, err)
			must(t, lock.Unlock())
			must(t, keep.Err())
			must(t, keep.Unlock())
			if held := d.heldLeases(); len(held) > 0 {
				t.Errorf("held: %v", held)
			}
		})
	}
}

// If the reply to a release is lost, and somebody else takes the lease before it is repeated,
// it was held until it was released. If it was broken meanwhile, nobody knows.
func TestLeaseReleasedAndTaken(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"released": nil, "broken": pglock.ErrLost} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.installLeases()
			source := &faultySource{Source: d.source()}
			locker, other := leaseLocker(t, source), leaseLocker(t, d.source())
			lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
			must(t, err)
			var next *pglock.Lock
			if want != nil {
				d.exec("UPDATE pglock.session SET broken = broken + 1")
				d.exec("UPDATE pglock.lease SET owner = NULL, token = token + 1 WHERE name = 'a'")
			}
			source.once(t, releasing, after)
			source.then = func() {
				var err error
				if next, err = other.TryLock(context.WithoutCancel(t.Context()), pglock.Name("a")); err != nil {
					t.Error(err)
				}
			}
			if err := lock.Unlock(); !errors.Is(err, want) {
				t.Errorf("unlock: %v, not %v", err, want)
			}
			if next != nil {
				must(t, next.Unlock())
			}
		})
	}
}

// If the server ends the connection while a session is opened, the server is unavailable.
func TestLeaseEndedWhileOpening(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	source := &faultySource{Source: d.source()}
	source.terminate = func(pid uint32) {
		if _, err := d.conn.Exec(t.Context(), "SELECT pg_terminate_backend($1)", int32(pid)); err != nil {
			t.Error(err)
		}
	}
	locker := leaseLocker(t, source)
	source.once(t, opening, terminated)
	_, err := locker.TryLock(t.Context(), pglock.Name("a"))
	wantRefusal(t, err, pglock.ErrUnavailable)
	lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
	must(t, err)
	must(t, lock.Unlock())
}

// A take that lands late, when nobody wants the lease any more, is returned.
func TestLeaseLateTake(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	source := &faultySource{Source: d.source()}
	locker := leaseLocker(t, source)
	keep, err := locker.Lock(t.Context(), pglock.Name("keep"), pglock.Wait(10*time.Second))
	must(t, err)
	blocker, err := leaseLocker(t, d.source()).Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
	must(t, err)
	source.once(t, taking, deferred)
	_, err = locker.Lock(t.Context(), pglock.Name("a"), pglock.NoWait())
	wantErr(t, err, pglock.ErrNotAcquired)
	must(t, blocker.Unlock())
	d.eventuallyHeld("a keep")
	d.eventuallyHeld("keep")
	must(t, keep.Unlock())
}

// A lease that was taken or released survives a crash of the server, also if the server's
// default is not to wait until a commit is written.
func TestLeaseSurvivesACrash(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"synchronous_commit": "off", "wal_writer_delay": "10s",
	}})
	d := databaseOn(t, server)
	d.exec("SET synchronous_commit = on")
	d.installLeases()
	bouncer := pgbouncer.Start(t, server, pgbouncer.Transaction, "server_login_retry = 0.1")
	for name, dsn := range map[string]string{"direct": d.dsn, "pooler": bouncer.ConnString(d.name())} {
		locker := newLocker(t, pgxlock.ConnString(dsn), pglock.Leases(time.Minute))
		crash := func() (owner string, token int64) {
			must(t, server.Kill())
			must(t, server.Restart(t.Context()))
			return databaseOn(t, server).lease("a")
		}
		lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(30*time.Second))
		must(t, err)
		if owner, token := crash(); owner == "" || token != lock.Token() {
			t.Errorf("%s: taken, but after a crash the table says %q, %d, not %d", name, owner, token, lock.Token())
		}
		must(t, lock.Unlock())
		if owner, token := crash(); owner != "" || token != lock.Token() {
			t.Errorf("%s: released, but after a crash the table says %q, %d, not %d", name, owner, token, lock.Token())
		}
	}
}

// A failover that loses the last commits gives a lease back to a holder that has released
// it, or takes it away from one that has it. Both are noticed on the next connection, and
// tokens grow all the same.
func TestLeaseLostCommits(t *testing.T) {
	everyPath(t, func(t *testing.T, d *db, source driver.Source) {
		locker := leaseLocker(t, source)
		var locks []*pglock.Lock
		for _, name := range []string{"wanted", "unwanted", "lost"} {
			lock, err := locker.Lock(t.Context(), pglock.Name(name), pglock.Wait(10*time.Second))
			must(t, err)
			locks = append(locks, lock)
		}
		wanted, unwanted, lost := locks[0], locks[1], locks[2]
		must(t, wanted.Unlock())
		must(t, unwanted.Unlock())
		d.exec(`UPDATE pglock.lease SET owner = (SELECT owner FROM pglock.lease WHERE name = 'lost') WHERE name LIKE '%wanted';
			UPDATE pglock.lease SET owner = NULL, token = token - 1 WHERE name = 'lost'`)
		again, err := locker.Lock(t.Context(), pglock.Name("wanted"), pglock.Wait(10*time.Second))
		must(t, err)
		if owner, token := d.lease("wanted"); again.Token() <= unwanted.Token() || token != again.Token() || owner == "" {
			t.Errorf("token %d after %d; the table says %d, owner %q", again.Token(), unwanted.Token(), token, owner)
		}
		d.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		select {
		case <-lost.Done():
			wantErr(t, lost.Err(), pglock.ErrLost)
		case <-time.After(30 * time.Second):
			t.Fatal("the holder was not notified")
		}
		d.eventuallyHeld("wanted")
		must(t, again.Err())
		must(t, again.Unlock())
	})
}

// A transaction that has locked the row of a lease delays its release, and nothing else.
func TestLeaseRowIsLocked(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	locker := leaseLocker(t, d.source())
	a, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
	must(t, err)
	d.exec("BEGIN")
	d.exec("SELECT FROM pglock.lease WHERE name = 'a' FOR UPDATE")
	next := make(chan *pglock.Lock, 1)
	go func() {
		lock, err := locker.Lock(context.WithoutCancel(t.Context()), pglock.Name("a"), pglock.Wait(20*time.Second))
		if err != nil {
			t.Error(err)
		}
		next <- lock
	}()
	for locker.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	unlocked := make(chan error, 1)
	go func() { unlocked <- a.Unlock() }()
	for range 20 {
		b, err := locker.Lock(t.Context(), pglock.Name("b"), pglock.Wait(10*time.Second))
		must(t, err)
		must(t, b.Unlock())
	}
	select {
	case err := <-unlocked:
		t.Fatalf("unlocked: %v", err)
	default:
	}
	d.exec("COMMIT")
	must(t, <-unlocked)
	if lock := <-next; lock != nil {
		if lock.Token() <= a.Token() {
			t.Errorf("token %d after %d", lock.Token(), a.Token())
		}
		must(t, lock.Unlock())
	}
}

// A session that cannot be opened because the connection breaks is unavailable, also if a
// pooler reports that.
func TestLeaseUnavailable(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	for _, f := range []fault{before, crashed} {
		source := &faultySource{Source: d.source()}
		locker := leaseLocker(t, source)
		source.once(t, opening, f)
		_, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.NoWait())
		wantErr(t, err, pglock.ErrUnavailable)
		for { // it tries again after a moment
			lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
			if err == nil {
				must(t, lock.Unlock())
				break
			}
			wantErr(t, err, pglock.ErrUnavailable)
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// A lease that an operator breaks is lost at the next renewal, and the others are not.
func TestLeaseBroken(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	locker := leaseLocker(t, d.source())
	a, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
	must(t, err)
	b, err := locker.Lock(t.Context(), pglock.Name("b"), pglock.Wait(10*time.Second))
	must(t, err)
	d.exec("UPDATE pglock.session SET broken = broken + 1 WHERE id = (SELECT owner FROM pglock.lease WHERE name = 'a')")
	d.exec("UPDATE pglock.lease SET owner = NULL, token = token + 1 WHERE name = 'a'")
	select {
	case <-a.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("not notified")
	}
	wantErr(t, a.Err(), pglock.ErrLost)
	wantErr(t, a.Unlock(), pglock.ErrLost)
	must(t, b.Err())
	must(t, b.Unlock())
	again, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
	must(t, err)
	must(t, again.Unlock())
}

// The holders are notified before others may take over, if the server does not answer.
func TestLeaseSilentServer(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	source := &faultySource{Source: d.source()}
	locker := leaseLocker(t, source)
	lock, err := locker.Lock(t.Context(), pglock.Name("a"), pglock.Wait(10*time.Second))
	must(t, err)
	source.mu.Lock()
	source.fault = func(string) fault { return before }
	source.mu.Unlock()
	<-lock.Done()
	wantErr(t, lock.Err(), pglock.ErrLost)
	var left float64
	must(t, d.conn.QueryRow(t.Context(), "SELECT extract(epoch FROM s.until - clock_timestamp()) FROM pglock.session s JOIN pglock.lease l ON l.owner = s.id").Scan(&left))
	if left <= 0 {
		t.Errorf("notified %v s too late", -left)
	}
	wantErr(t, lock.Unlock(), pglock.ErrLost)
	// Then another takes over.
	next, err := leaseLocker(t, d.source()).Lock(t.Context(), pglock.Name("a"), pglock.Wait(20*time.Second))
	must(t, err)
	if next.Token() <= lock.Token() {
		t.Errorf("token %d after %d", next.Token(), lock.Token())
	}
	must(t, next.Unlock())
}
