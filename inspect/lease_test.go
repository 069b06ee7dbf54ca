package inspect_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/pgxlock"
)

// names returns the names of leases, and what is special about each.
func names(leases []inspect.Lease) string {
	var all []string
	for _, l := range leases {
		name := l.Name
		if l.Slot != 0 {
			name += fmt.Sprint("/", l.Slot)
		}
		switch {
		case l.Held():
			name += " held"
		case l.Owner != "":
			name += " expired"
		default:
			name += " free"
		}
		if l.Due > 0 {
			name += " due"
		}
		if l.Wanted {
			name += " wanted"
		}
		all = append(all, name)
	}
	return strings.Join(all, ", ")
}

func TestLeases(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"pglock", `my "locks"`} {
		t.Run(schema, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			guarded, _ := guard(t, s.looking())
			shared, isShared := guard(t, lent{s.looking()})
			if !isShared {
				t.Fatal("the lent connection is not shared")
			}
			queriers := map[string]driver.Querier{"direct": s.q, "guarded": guarded, "shared": shared}
			for name, q := range queriers {
				if leases, err := inspect.Leases(t.Context(), q, schema); !errors.Is(err, pglock.ErrNotInstalled) {
					t.Errorf("%s: without tables: %v, %v", name, leases, err)
				}
			}
			setup := s.session("setup").do(pglock.LeaseSQL(schema))
			for name, q := range queriers {
				if leases, err := inspect.Leases(t.Context(), q, schema); err != nil || len(leases) != 0 {
					t.Errorf("%s: in new tables: %v, %v", name, leases, err)
				}
			}
			config, err := pgx.ParseConfig(s.dsn)
			if err != nil {
				t.Fatal(err)
			}
			locker, err := pglock.New(pgxlock.Config(config), pglock.Leases(time.Minute), pglock.Schema(schema))
			if err != nil {
				t.Fatal(err)
			}
			defer locker.Close()
			held := map[pglock.Key]*pglock.Lock{}
			long := strings.Repeat("long ", 200)
			keys := []pglock.Key{pglock.Name("a"), pglock.Name("#b"), pglock.Name("{\"c\": \"é\\\"}"), pglock.Int(-7), pglock.Pair(7, -42), pglock.Name(long), pglock.Name("gone")}
			for _, key := range keys {
				if held[key], err = locker.Lock(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			if err := held[pglock.Name("gone")].Unlock(); err != nil {
				t.Fatal(err)
			}
			in := pgx.Identifier{schema}.Sanitize()
			setup.do(
				"INSERT INTO "+in+".session (id, until) VALUES ('old', now() - interval '1 s'), ('ended', '-infinity')",
				"INSERT INTO "+in+".lease (name, slot, token, owner, free_at, wanted) VALUES"+
					" ('x', 0, 1, 'old', '-infinity', now() + interval '1 h'), ('x', 1, 2, 'ended', '-infinity', '-infinity'), ('x', 2, 3, 'unknown', 'infinity', '-infinity'),"+
					" ('y', 0, 4, NULL, now() + interval '1 h', '-infinity'), ('y', 1, 5, NULL, 'infinity', '-infinity'), ('z', 0, 6, NULL, '-infinity', '-infinity'),"+
					// The one with slot -1 waits for slots.
					" ('x', -1, 8, 'old', '-infinity', '-infinity'), ('y', -1, 9, (SELECT owner FROM "+in+".lease WHERE name = 'a'), '-infinity', '-infinity')")
			const others = "x expired wanted, x/1 expired, x/2 expired due, y free due wanted, y/1 free due wanted"
			for name, q := range queriers {
				leases, err := inspect.Leases(t.Context(), q, schema)
				if err != nil {
					t.Fatal(name, err)
				}
				want := fmt.Sprintf("##b held, #-7 held, #7,-42 held, %s held, a held, %s, {\"c\": \"é\\\"} held", pglock.Name(long).LeaseName(), others)
				if got := names(leases); got != want {
					t.Errorf("%s: %s, not %s", name, got, want)
				}
				for _, l := range leases {
					lock := held[l.Key]
					switch {
					case strings.HasPrefix(l.Name, "#sha256:"):
						if l.HasKey {
							t.Errorf("%s: a hash has the key %v", name, l.Key)
						}
					case !l.HasKey:
						t.Errorf("%s: %q has no key", name, l.Name)
					case lock != nil:
						if l.Token != lock.Token() || l.Process != int32(os.Getpid()) || l.Program == "" || l.Left < 30*time.Second || l.Left > time.Minute || l.Due != 0 ||
							time.Since(l.Since).Abs() > time.Hour || l.Duration <= 0 || l.Duration > 30*time.Second || l.Since.Location() != time.UTC {
							t.Errorf("%s: %+v", name, l)
						}
					case l.Name == "y" && (l.Slot == 0 && (l.Due < 59*time.Minute || l.Due > time.Hour) || l.Slot == 1 && l.Due != math.MaxInt64):
						t.Errorf("%s: %+v", name, l)
					}
				}
				// Only some of them.
				leases, err = inspect.Leases(t.Context(), q, schema, pglock.Name("x"), pglock.Int(-7), pglock.Name("gone"), keys[2])
				if want := "#-7 held, x expired wanted, x/1 expired, x/2 expired due, {\"c\": \"é\\\"} held"; err != nil || names(leases) != want {
					t.Errorf("%s: some: %s, %v, not %s", name, names(leases), err, want)
				}
			}
			// A role without SELECT gets Postgres' error.
			weak := "weak_" + config.Database
			setup.do("CREATE ROLE "+weak, "GRANT USAGE ON SCHEMA "+in+" TO "+weak, "SET ROLE "+weak)
			leases, err := inspect.Leases(t.Context(), setup.querier(), schema)
			if sqlstate.Of(err) != sqlstate.InsufficientPrivilege {
				t.Errorf("without SELECT: %v, %v", leases, err)
			}
			setup.do("RESET ROLE", "DROP OWNED BY "+weak, "DROP ROLE "+weak)
			// Other tables with these names are none of pglock's.
			setup.do("CREATE SCHEMA foreign_tables", "CREATE TABLE foreign_tables.session ()", "CREATE TABLE foreign_tables.lease (name text)")
			if leases, err := inspect.Leases(t.Context(), s.q, "foreign_tables"); !errors.Is(err, pglock.ErrNotInstalled) {
				t.Errorf("of other tables: %v, %v", leases, err)
			}
		})
	}
}

// Every key that a name of a lease stands for is found again, in the order of the table.
func TestLeasesOfKeys(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	setup := s.session("setup").do(pglock.LeaseSQL("pglock"))
	keys := []pglock.Key{pglock.Name(""), pglock.Name("#"), pglock.Name("#7"), pglock.Name("##"), pglock.Int(0), pglock.Int(math.MinInt64), pglock.Pair(math.MinInt32, math.MaxInt32)}
	var want []string
	for _, key := range keys {
		if _, err := setup.conn.Exec(t.Context(), "INSERT INTO pglock.lease (name, token, owner) VALUES ($1, 1, 'x')", key.LeaseName()); err != nil {
			t.Fatal(err)
		}
		want = append(want, key.LeaseName())
	}
	setup.do("INSERT INTO pglock.lease (name, token, owner) VALUES ('#07', 1, 'x'), ('#1,', 1, 'x'), ('#sha256:0', 1, 'x')")
	slices.Sort(want)
	leases, err := inspect.Leases(t.Context(), s.q, "pglock", keys...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range leases {
		if !l.HasKey || l.Key.LeaseName() != l.Name || !slices.Contains(keys, l.Key) {
			t.Errorf("%q has the key %v, %v", l.Name, l.Key, l.HasKey)
		}
		got = append(got, l.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	all, err := inspect.Leases(t.Context(), s.q, "pglock")
	if err != nil || len(all) != len(keys)+3 {
		t.Errorf("%d leases, %v", len(all), err)
	}
	for _, l := range all {
		if l.HasKey != slices.Contains(want, l.Name) {
			t.Errorf("%q has the key %v, %v", l.Name, l.Key, l.HasKey)
		}
	}
}
