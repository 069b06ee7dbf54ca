package pglock

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

//go:embed sql/table_holders.sql
var tableHoldersSQL string

// LockTables locks tables in a transaction of the caller's and waits until it has
// them: LOCK in SQL (PostgreSQL manual, VI. "LOCK"). COMMIT or ROLLBACK frees
// them; nothing else does, except that ROLLBACK TO a savepoint frees what was
// locked after the savepoint. The mode is [AccessExclusive] unless [In] says
// otherwise.
//
//	err := pglock.LockTables(ctx, pgxlock.Tx(tx), pglock.Tables("app.orders", &User{}),
//		pglock.In(pglock.ShareRowExclusive), pglock.Wait(2*time.Second))
//
// With a table its partitions are locked, and the tables that inherit from it,
// unless [Only] is given; with a view, the tables that it reads. Of the other kinds
// of relations Postgres locks none by itself, foreign tables and materialized views
// among them: that is an error (SQLSTATE 42809).
//
// Several tables are locked in the order of their names, whatever the order in
// which they are given, so that callers which name the tables alike never deadlock
// with each other over them; either all are locked, or none. In a REPEATABLE READ or
// SERIALIZABLE transaction, lock before anything is read: then what is read is what
// was there when the lock was had. Nothing that LockTables does before it has the
// lock counts as reading.
//
// The options are [In], [Only], [Wait] and [NoWait]. Wait bounds the whole call,
// where lock_timeout counts anew for each table and partition; neither that nor
// statement_timeout, as the session has them, counts meanwhile, and both are as
// before afterwards. With neither Wait nor NoWait the wait lasts as long as ctx and
// the session's own timeouts allow.
//
// When the tables are not had, the error is [ErrNotAcquired] and has who holds them,
// or any of them, and the transaction is as it was before: it can go on. So it can
// after [ErrDeadlock] and [ErrLockTableFull], and when there is no such table, which
// the error names (42P01, or 3F000 for its schema), or no permission to lock it
// (42501). Outside a transaction the error is [ErrNoTransaction]. What ctx covers,
// and what a transaction is worth after its end, is as with [LockTx].
func LockTables(ctx context.Context, conn Conn, tables TableList, opts ...Option) error {
	const op = "lock tables"
	r, err := newRequest(op, canWait|hasTables, opts)
	if err != nil {
		return err
	}
	if err := tables.check(op); err != nil {
		return err
	}
	return newTableLock(op, conn, tables, r).take(ctx)
}

// A TableList names tables. Make one with [Tables].
type TableList struct {
	names []tableName
	err   error
}

// Tables names tables for [LockTables] and [DoTables]. Each is a string or a model,
// which is anything with a method TableName() string, as GORM has it, and may be a
// value or a pointer, nil too.
//
// A name is as Postgres has it, capital letters included: unlike in SQL, "Orders"
// is not orders. A dot parts the schema from the table; without it, search_path
// decides. A part with a dot in it is written in double quotes, and a double quote
// in it twice: `app."odd.name"`.
//
// What cannot be a name is an error of the verb that is given the list.
func Tables(tables ...any) TableList {
	var list TableList
	for _, table := range tables {
		s, err := tableString(table)
		if err != nil {
			return TableList{err: err}
		}
		name, err := parseTableName(s)
		if err != nil {
			return TableList{err: err}
		}
		list.names = append(list.names, name)
	}
	return list
}

func (l TableList) check(op string) error {
	if l.err != nil {
		return fmt.Errorf("pglock: %s: %w", op, l.err)
	}
	if len(l.names) == 0 {
		return errors.New("pglock: " + op + ": no tables")
	}
	return nil
}

// A tableModel is what GORM calls a Tabler.
type tableModel interface{ TableName() string }

// tableString is the name of a table as the caller gave it.
func tableString(table any) (string, error) {
	if s, ok := table.(string); ok {
		return s, nil
	}
	v := reflect.ValueOf(table)
	if !v.IsValid() {
		return "", errors.New("nil is no table")
	}
	// The method may belong to the value or to the pointer, whichever was given.
	if v.Kind() == reflect.Pointer && v.IsNil() {
		v = reflect.New(v.Type().Elem())
	} else if v.Kind() != reflect.Pointer {
		p := reflect.New(v.Type())
		p.Elem().Set(v)
		v = p
	}
	if model, ok := v.Interface().(tableModel); ok {
		return model.TableName(), nil
	}
	return "", fmt.Errorf("a %T names no table: it is neither a string nor has it a method TableName() string", table)
}

// A tableName is a table, and its schema or "".
type tableName struct{ schema, table string }

// maxName is how long a name in Postgres is: the rest of a longer one would be cut
// off in silence, and another table be meant.
const maxName = 63

// parseTableName reads a name as Tables describes it.
func parseTableName(s string) (tableName, error) {
	var parts []string
	bad := func(why string) (tableName, error) {
		shown, more := cut(s, shownName)
		return tableName{}, fmt.Errorf("the table %q%s %s", shown, more, why)
	}
	rest := s
	for {
		var part string
		if strings.HasPrefix(rest, `"`) {
			end := closingQuote(rest)
			if end < 0 {
				return bad("has an opening double quote and no closing one")
			}
			part, rest = strings.ReplaceAll(rest[1:end], `""`, `"`), rest[end+1:]
			if rest != "" && rest[0] != '.' {
				return bad("goes on after a closing double quote")
			}
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
		}
		switch {
		case part == "":
			return bad("has an empty part")
		case strings.Contains(part, "\x00"):
			return bad("has a zero byte in it")
		case !utf8.ValidString(part):
			return bad("is not UTF-8")
		case len(part) > maxName:
			return bad(fmt.Sprintf("is longer than the %d bytes that Postgres keeps of a name", maxName))
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	switch len(parts) {
	case 1:
		return tableName{table: parts[0]}, nil
	case 2:
		return tableName{parts[0], parts[1]}, nil
	}
	return bad(`has more parts than schema and table: a dot in a name stands in double quotes`)
}

// closingQuote is where the quote ends that s begins with.
func closingQuote(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}
		if i+1 == len(s) || s[i+1] != '"' {
			return i
		}
		i++
	}
	return -1
}

// String is the table for a person to read.
func (n tableName) String() string {
	if n.schema == "" {
		return n.table
	}
	return n.schema + "." + n.table
}

// sql is the table in SQL.
func (n tableName) sql() string {
	if n.schema == "" {
		return quoteIdentifier(n.table)
	}
	return quoteIdentifier(n.schema) + "." + quoteIdentifier(n.table)
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// newTableLock is the taking of tables.
func newTableLock(op string, conn Conn, tables TableList, r request) *txLock {
	mode := r.tableMode
	if mode == 0 {
		mode = AccessExclusive
	}
	var names, quoted []string
	for _, name := range tables.names {
		names = append(names, name.String())
		quoted = append(quoted, name.sql())
	}
	slices.Sort(quoted)
	quoted = slices.Compact(quoted)
	return &txLock{
		report:  Error{Op: op, Tables: names},
		conn:    conn,
		request: r,
		lock:    lockTableSQL(quoted, mode, r),
		limit:   timeouts{whole: true, quiet: true},
		holders: func(ctx context.Context) ([]Holder, error) {
			return tableHolders(ctx, conn, quoted, mode, r.only)
		},
	}
}

// lockTableSQL locks tables.
func lockTableSQL(quoted []string, mode Mode, r request) string {
	var b strings.Builder
	b.WriteString("LOCK TABLE ")
	for i, table := range quoted {
		if i > 0 {
			b.WriteString(", ")
		}
		if r.only {
			b.WriteString("ONLY ")
		}
		b.WriteString(table)
	}
	b.WriteString(" IN " + mode.String() + " MODE")
	if r.noWait {
		b.WriteString(" NOWAIT")
	}
	return b.String()
}

// tableHolders asks who is in the way of a lock on tables.
func tableHolders(ctx context.Context, conn Conn, quoted []string, mode Mode, only bool) ([]Holder, error) {
	// To ask is to read, which settles what a transaction of the stricter levels
	// gets to see: it may still want to lock, and read after that.
	level, err := queryText(ctx, conn, "SHOW transaction_isolation")
	if err != nil || !strings.HasPrefix(level, "read ") {
		return nil, err
	}
	var conflicts []string
	for _, other := range Modes() {
		if mode.Conflicts(other) {
			conflicts = append(conflicts, other.PgLocks())
		}
	}
	// Strings always have a JSON form.
	tables, _ := json.Marshal(quoted)
	modes, _ := json.Marshal(conflicts)
	return askHolders(ctx, conn, tableHoldersSQL, []string{string(tables), string(modes), strconv.FormatBool(only)})
}
