package pglock

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/internal/termtext"
)

// The limits of the time to live of leases.
const (
	minTTL = 3 * time.Second
	maxTTL = 24 * time.Hour
)

// Leases makes the Locker take leases in place of advisory locks. A lease is a row of a
// table, so it works through every connection pooler and survives the loss of a connection.
// It is slower than an advisory lock, and after a crash others get it only when it expires.
// The tables must be there: see [LeaseSQL].
//
// The Locker renews a single row, however many leases it holds, each third of ttl. If it
// cannot for so long that others might take over soon, it gives its leases up: it closes
// Done, cancels the ctx of Do, and Err returns [ErrLost]. That happens a tenth of ttl, or at
// least a second, before the database lets others take them. A process that is suspended at
// that time notices when it resumes; [Fence] protects against what it may do until then.
//
// ttl must be between 3 s and 24 h; 30 s suits most programs. [Shared] leases do not exist,
// and of the other options of New only [Logger] and [Schema] may be given.
func Leases(ttl time.Duration) LockerOption {
	return engine.OptionFunc(func(c *engine.Config) error {
		if ttl < minTTL || ttl > maxTTL {
			return fmt.Errorf("Leases(%v): must be between %v and %v", ttl, minTTL, maxTTL)
		}
		lease := leaseConfig(c)
		lease.TTL = ttl.Truncate(time.Millisecond)
		return nil
	})
}

// Schema sets the schema of the tables of leases. The default is pglock.
func Schema(name string) LockerOption {
	return engine.OptionFunc(func(c *engine.Config) error {
		if name == "" || strings.Contains(name, "\x00") || !utf8.ValidString(name) {
			return fmt.Errorf("Schema(%q): not a name", name)
		}
		leaseConfig(c).Schema = name
		return nil
	})
}

// leaseConfig returns the configuration of leases, and creates it if there is none.
func leaseConfig(c *engine.Config) *engine.LeaseConfig {
	if c.Lease == nil {
		host, _ := os.Hostname() // "" if it is unknown
		// Not every encoding of a database has other characters.
		c.Lease = &engine.LeaseConfig{Schema: "pglock", App: termtext.ASCII(filepath.Base(os.Args[0])), Host: termtext.ASCII(host)}
	}
	return c.Lease
}

// checkLeases checks the options that concern leases, and completes them.
func checkLeases(c *engine.Config, standard engine.Config) error {
	switch {
	case c.Lease == nil:
		return nil
	case c.Lease.TTL == 0:
		return errors.New("Schema() is only for Leases()")
	case c.Sessions != standard.Sessions:
		return errors.New("Sessions() has no effect with Leases(), which use one session")
	case c.Heartbeat != standard.Heartbeat:
		return errors.New("Heartbeat() has no effect with Leases(), whose time to live it is")
	case c.AllowPooler:
		return errors.New("AllowPooler() has no effect with Leases(), which work through every pooler")
	}
	c.Sessions, c.HandOver = 1, 0
	return nil
}

//go:embed sql/leases.sql
var leasesSQL string

// LeaseSQL returns the statements that create the tables of [Leases] in a schema, for
// migration tools. They may be run again. The role that runs them needs CREATE on the
// database, and the others USAGE on the schema and SELECT, INSERT, UPDATE and DELETE on its
// tables. The command pglock install runs the same statements.
func LeaseSQL(schema string) string { return sqltext.InSchema(leasesSQL, schema) }

// maxLeaseName is the longest name, in bytes, that is stored as it is. Each name is in an
// index, whose entries are limited.
const maxLeaseName = 512

// LeaseName returns the name under which a lease of this key is stored in the table: the
// name of a [Name], #7 for Int(7), and #1,2 for Pair(1, 2). A name that begins with # is
// stored with another # before it; one that is longer than 512 bytes, or that Postgres
// cannot store, as #sha256: and its hash.
func (k Key) LeaseName() string {
	switch {
	case k.pair:
		class, object := k.halves()
		return fmt.Sprintf("#%d,%d", class, object)
	case !k.named:
		return "#" + strconv.FormatInt(k.id, 10)
	case len(k.name) > maxLeaseName || strings.Contains(k.name, "\x00") || !utf8.ValidString(k.name):
		sum := sha256.Sum256([]byte(k.name))
		return "#sha256:" + hex.EncodeToString(sum[:])
	case strings.HasPrefix(k.name, "#"):
		return "#" + k.name
	}
	return k.name
}

// Token returns the token of a lease, or of an advisory lock taken with [Fenced], and 0 for any
// other lock. It grows with each holder of the key; that of a lease stays below 2^53. For
// several leases it is that of the first.
//
// Whatever a lock protects can refuse a holder that is late, by remembering the highest
// token that it has seen. For a lease in the same database, [Fence] is enough.
func (l *Lock) Token() int64 { return l.held.Token() }

//go:embed sql/fence.sql
var fenceSQL string

// Fence checks a lease in the caller's transaction, which must be in the same database. Nil
// means that nobody can take the lease over until the transaction ends, even if it expires
// meanwhile: what the transaction writes is written by the only holder. Call it before
// writing. The error is an [*Error]: [ErrLost] if somebody else has taken the lease over, or
// could have; [ErrNotHeld] if the lock is unlocked; otherwise the reason why it could not be
// checked.
//
// Renewing and releasing go on meanwhile. A transaction that stays open keeps others from
// taking the lease even after it expires, and they report that it is held. ctx covers the
// statement.
func Fence(ctx context.Context, tx driver.Conn, lock *Lock) error {
	const op = "fence"
	if lock == nil {
		return errors.New("pglock: fence: there is no lock: LockFrom needs the ctx of a function that Do or Lead runs")
	}
	fail := func(err error) error { return newError(op, lock.Keys(), err) }
	if lock.schema == "" {
		return fail(errors.New("it is not a lease: take it with a Locker that has Leases()"))
	}
	if err := lock.held.Err(); errors.Is(err, ErrNotHeld) {
		return fail(err)
	}
	open, err := handshake.InTransaction(ctx, tx)
	if err == nil && !open {
		err = ErrNoTransaction
	}
	if err != nil {
		return fail(err)
	}
	for _, h := range lock.held.parts() {
		key := h.Key()
		text, err := query.Text(ctx, tx, sqltext.InSchema(sqltext.WithoutComment(fenceSQL), lock.schema),
			key.Name, strconv.Itoa(int(key.Slot)), strconv.FormatInt(h.Token(), 10))
		switch {
		case sqlstate.Of(err) == sqlstate.SerializationFailure:
			// Only taking a lease conflicts with the check.
			return fail(fmt.Errorf("%w: somebody else has taken it over: %w", ErrLost, err))
		case err != nil:
			return fail(err)
		case text != "1":
			return fail(fmt.Errorf("%w: somebody else has taken it over, or could have", ErrLost))
		}
	}
	return nil
}
