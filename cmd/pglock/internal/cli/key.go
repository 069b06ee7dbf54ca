package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/termtext"
)

// pgLocksFlag is --pg-locks: three columns of pg_locks.
type pgLocksFlag struct{ keyFlag }

func (f *pgLocksFlag) Type() string { return "CLASSID,OBJID,OBJSUBID" }

func (f *pgLocksFlag) Set(s string) error {
	parts := strings.Split(s, ",")
	if len(parts) != 3 {
		return errors.New("expected three numbers from pg_locks: classid,objid,objsubid")
	}
	var numbers [3]uint64
	for i, name := range []string{"classid", "objid", "objsubid"} {
		n, err := strconv.ParseUint(strings.TrimSpace(parts[i]), 10, 32)
		if err != nil {
			return fmt.Errorf("%s must be a number from 0 to 4294967295", name)
		}
		numbers[i] = n
	}
	key, ok := pglock.PgLocksKey(uint32(numbers[0]), uint32(numbers[1]), int16(min(numbers[2], 1<<15-1)))
	if !ok {
		return errors.New("objsubid must be 1 (a 64-bit number) or 2 (a pair)")
	}
	f.key, f.set = key, true
	return nil
}

const keyHelp = `Prints the key that a name maps to, in every form that Postgres shows.

Postgres identifies advisory locks by number. The number of a name is the first 8
bytes of its SHA-256, read as a little-endian signed integer, as in django-pglock.
--pg-locks converts the columns of pg_locks to the number that the application used.
A number cannot be converted back to a name.`

const keyExamples = `  pglock key nightly-report
  pglock key -o id nightly-report
  pglock key --pg-locks 2277814946,280642407,1`

func (a *app) keyCommand() *cobra.Command {
	var number keyFlag
	var row pgLocksFlag
	output := outputFlag{value: "table", choices: []string{"table", "json", "id"}}
	cmd := &cobra.Command{
		Use:                   "key [-o FORMAT] NAME | --key N|A,B | --pg-locks CLASSID,OBJID,OBJSUBID",
		Short:                 "Print the key that a name maps to",
		Long:                  keyHelp,
		Example:               keyExamples,
		Annotations:           map[string]string{offline: "true"},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var key pglock.Key
			var err error
			switch {
			case len(args) == 1 && !number.set && !row.set:
				if key, err = parseName(args[0]); err != nil {
					return usagef(cmd, "%v", err)
				}
			case len(args) == 0 && number.set && !row.set:
				key = number.key
			case len(args) == 0 && row.set && !number.set:
				key = row.key
			default:
				return usagef(cmd, "give exactly one of NAME, --key and --pg-locks")
			}
			return printKey(a.Out, key, output.value)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	cmd.Flags().Var(&number, "key", "a number or a pair of numbers instead of a name")
	cmd.Flags().Var(&row, "pg-locks", "columns of pg_locks instead of a name")
	return cmd
}

// keyForms holds a key in all its forms. It is the JSON of pglock key.
type keyForms struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key"`
	ID       int64  `json:"id"`
	Pair     []int  `json:"pair,omitempty"`
	ClassID  uint32 `json:"classid"`
	ObjID    uint32 `json:"objid"`
	ObjSubID int16  `json:"objsubid"`
	Lock     string `json:"lock"`
	TryLock  string `json:"try_lock"`
	XactLock string `json:"xact_lock"`
	Unlock   string `json:"unlock"`
	Find     string `json:"find"`
}

func formsOf(key pglock.Key) keyForms {
	classid, objid, objsubid := key.PgLocks()
	args := strconv.FormatInt(key.ID(), 10)
	f := keyForms{Key: keyText(key), ID: key.ID(), ClassID: classid, ObjID: objid, ObjSubID: objsubid}
	if class, object, ok := key.Pair(); ok {
		f.Pair = []int{int(class), int(object)}
		args = fmt.Sprintf("%d, %d", class, object)
	}
	f.Name, _ = key.Name()
	f.Lock = "SELECT pg_advisory_lock(" + args + ");"
	f.TryLock = "SELECT pg_try_advisory_lock(" + args + ");"
	f.XactLock = "SELECT pg_advisory_xact_lock(" + args + ");"
	f.Unlock = "SELECT pg_advisory_unlock(" + args + ");"
	f.Find = fmt.Sprintf("SELECT * FROM pg_locks WHERE locktype = 'advisory' AND classid = %d AND objid = %d AND objsubid = %d;",
		classid, objid, objsubid)
	return f
}

func printKey(w io.Writer, key pglock.Key, output string) error {
	f := formsOf(key)
	switch output {
	case "json":
		return render.WriteJSON(w, f)
	case "id":
		_, err := fmt.Fprintln(w, f.Key)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(t, "%s\t%s\n", name, value) }
	if f.Name != "" {
		line("name", termtext.Line(f.Name))
	}
	line("key", f.Key)
	line("pg_locks", fmt.Sprintf("classid %d, objid %d, objsubid %d", f.ClassID, f.ObjID, f.ObjSubID))
	line("lock", f.Lock)
	line("try lock", f.TryLock)
	line("xact lock", f.XactLock)
	line("unlock", f.Unlock)
	line("find", f.Find)
	return t.Flush()
}
