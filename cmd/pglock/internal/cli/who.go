package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const whoHelp = `Prints which sessions hold the locks NAME, and how many wait for them. It does not
request the locks. --key is a lock by number, as in pglock run.

NAME may be an advisory lock, a lease, or both. The leases are those in the
schema of --schema, if its tables exist. With --slots, the advisory locks are
also those that pglock run --slots of the same number takes.

Another session may acquire or release a lock right after that. To run a command only
if no other runs, use pglock run --no-wait.

Exit codes, as grep has them:

  0    a session holds a lock or a lease; of several, at least one
  1    no session holds any of them
  2    wrong usage, or any other error, such as leases that may not be read
  69   no server answered, or it accepts no sessions now`

const whoExamples = `  pglock who nightly-report
  pglock who nightly-report > /dev/null; [ $? -eq 1 ] && ./enqueue nightly-report
  pglock who --watch 1s deploy migrate
  pglock who -o json report-1 report-2 report-3 | jq -r '.[] | select(.held | not).name'`

// A whoRequest holds the arguments of pglock who.
type whoRequest struct {
	names  []whoName
	slots  slotsFlag
	schema schemaFlag
	json   bool
	width  int // to cut the lines to, or 0

	// What the last drawing showed.
	held   bool
	hidden bool // the leases could not be read
}

// A whoName is a lock as it was named.
type whoName struct {
	key   pglock.Key
	title string
}

func (a *app) whoCommand() *cobra.Command {
	var r whoRequest
	var numbers keysFlag
	var watch watchFlag
	output := outputFlag{choices: []string{"text", "json"}, value: "text"}
	cmd := &cobra.Command{
		Use:                   "who [FLAG...] NAME...",
		Short:                 "Show who holds locks",
		Long:                  whoHelp,
		Example:               whoExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range watch.fromArgs(args) {
				key, err := parseName(name)
				if err != nil {
					return usagef(cmd, "%v", err)
				}
				r.names = append(r.names, whoName{key, name})
			}
			for _, key := range numbers {
				r.names = append(r.names, whoName{key, "--key " + keyText(key)})
			}
			if len(r.names) == 0 {
				return usagef(cmd, "no lock given: pglock who NAME")
			}
			r.json = output.value == "json"
			if watch.every > 0 && isTerminal(a.Out) {
				r.width = a.width() // a broken line would shift the frame
			}
			err := a.show(cmd.Context(), "who", watch, r.draw)
			switch {
			case err != nil:
				return &undecidedError{err}
			case r.held || watch.every > 0:
				return nil
			case r.hidden:
				return &undecidedError{errHiddenLeases}
			}
			return errFree
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().Var(&numbers, "key", "also the lock of this number or pair of numbers; repeat for several")
	cmd.Flags().Var(&r.slots, "slots", "also who holds the slots of a lock with this many")
	r.schema.register(cmd.Flags())
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	watch.register(cmd.Flags())
	return cmd
}

// databaseSQL returns the OID of the connected database.
const databaseSQL = `SELECT CAST(d.oid AS pg_catalog.text) FROM pg_catalog.pg_database AS d
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()`

// draw writes the holders of each lock, and returns notices for stderr.
func (r *whoRequest) draw(ctx context.Context, f *fleet, out *bytes.Buffer) ([]string, error) {
	session := f.members[0].session // who reads a single database
	users, err := readLockUsers(ctx, session, r.names, int(r.slots))
	if err != nil {
		return nil, err
	}
	keys := make([]pglock.Key, len(r.names))
	for i, name := range r.names {
		keys[i] = name.key
	}
	leases, notices, err := readLeases(ctx, session, r.schema, keys...)
	if err != nil {
		return nil, err
	}
	r.hidden = len(notices) > 0
	for i := range leases {
		for j, key := range keys {
			if key.LeaseName() == leases[i].Name {
				users[j].Leases = append(users[j].Leases, &leases[i])
			}
		}
	}
	hidden := hiddenSessions{}
	r.held = false
	for _, u := range users {
		for _, l := range slices.Concat(u.Holders, u.Waiters) {
			hidden.note(session, l.Session)
		}
		r.held = r.held || u.IsHeld()
	}
	notices = append(notices, hidden.notices(f.sessions())...)
	if r.json {
		return notices, render.WriteLockUsersJSON(out, users)
	}
	return notices, render.WriteLockUsers(out, users, r.width)
}

// readLockUsers reads the holders and waiters of advisory locks, and of their slots if slots is
// not 0.
func readLockUsers(ctx context.Context, s *session, names []whoName, slots int) ([]render.LockUsers, error) {
	text, err := s.text(ctx, databaseSQL)
	if err != nil {
		return nil, err
	}
	database, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, err
	}
	locks, err := inspect.Locks(ctx, s.guarded, inspect.Where("type", "=", "advisory"))
	if err != nil {
		return nil, err
	}
	var users []render.LockUsers
	for _, name := range names {
		u := render.LockUsers{Title: name.title, Key: keyText(name.key)}
		u.Name, _ = name.key.Name()
		places, gate := placesOf(name.key, slots)
		var first []*inspect.Lock
		for i := range locks {
			l := &locks[i]
			at := place{l.ClassID, l.ObjectID, l.ObjectSubID}
			switch {
			case uint64(l.DatabaseOID) != database:
			case slots > 0 && at == gate:
				// Who holds the gate waits for a slot, and the others for the gate. Who has it in
				// shared mode does not wait.
				switch {
				case !l.Granted:
					u.Waiters = append(u.Waiters, l)
				case l.Mode == "ExclusiveLock":
					first = append(first, l)
				}
			case !places[at]:
			case l.Granted:
				u.Holders = append(u.Holders, l)
			default:
				u.Waiters = append(u.Waiters, l)
			}
		}
		u.Waiters = append(u.Waiters, first...)
		users = append(users, u)
	}
	return users, nil
}

// A place identifies an advisory lock in pg_locks.
type place struct {
	classid, objid uint32
	objsubid       int16
}

// placeOf returns the place of a key.
func placeOf(key pglock.Key) (p place) {
	p.classid, p.objid, p.objsubid = key.PgLocks()
	return p
}

// placesOf returns the places of key and of its slots, and that of the gate at which requests
// wait for a slot: see [pglock.Slots].
func placesOf(key pglock.Key, slots int) (places map[place]bool, gate place) {
	name, ok := key.Name()
	if !ok {
		name = key.LeaseName()
	}
	places = map[place]bool{placeOf(key): true}
	for i := range slots {
		places[placeOf(pglock.Name(name+"\x00"+strconv.Itoa(i)))] = true
	}
	return places, placeOf(pglock.Name(name + "\x00gate"))
}

// keysFlag is --key, repeated.
type keysFlag []pglock.Key

func (f *keysFlag) Type() string { return "N|A,B" }

func (f *keysFlag) String() string {
	text := ""
	for i, key := range *f {
		if i > 0 {
			text += " "
		}
		text += keyText(key)
	}
	return text
}

func (f *keysFlag) Set(s string) error {
	var one keyFlag
	if err := one.Set(s); err != nil {
		return err
	}
	*f = append(*f, one.key)
	return nil
}

// errFree is returned if no session holds any of the locks. It prints no message.
var errFree = errors.New("no session holds any of the locks")

// errHiddenLeases is returned if no session holds any of the locks, and the role may not read
// the leases.
var errHiddenLeases = errors.New("whether a lease is held is not known")

// An undecidedError is an error of pglock who, which must not look as if a lock were
// free.
type undecidedError struct{ err error }

func (e *undecidedError) Error() string { return e.err.Error() }
func (e *undecidedError) Unwrap() error { return e.err }
