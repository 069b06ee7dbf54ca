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

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/internal/termtext"
)

//go:embed sql/table_holders.sql
var tableHoldersSQL string

// LockTables locks tables in the caller's transaction and waits until it has acquired
// them, as LOCK does in SQL (PostgreSQL manual, VI. "LOCK"). COMMIT or ROLLBACK releases
// the locks; only ROLLBACK TO a savepoint also does, for locks taken after the savepoint.
// The mode is [AccessExclusive] unless [In] is given.
//
//	err := pglock.LockTables(ctx, pgxlock.Tx(tx), pglock.Tables("app.orders", &User{}),
//		pglock.In(pglock.ShareRowExclusive), pglock.Wait(2*time.Second))
//
// A table is locked together with its partitions and inheritance children, unless [Only]
// is given, and a view together with the tables it reads. Postgres cannot lock other
// kinds of relations, such as foreign tables and materialized views, by name: that is an
// error (SQLSTATE 42809).
//
// Several tables are locked in the order of their names, whatever their order in the
// list, so callers that name the tables in the same way cannot deadlock with each other
// over them. Either all are locked or none. In a REPEATABLE READ or SERIALIZABLE
// transaction, lock before the first read, so that reads see the data as of the lock.
// LockTables itself runs nothing before the lock that counts as a read.
//
// The options are [In], [Only], [Wait] and [NoWait]. Wait limits the whole call, while
// lock_timeout would start again for each table and partition. During the call, Wait
// replaces the session's lock_timeout and statement_timeout, and restores them
// afterwards. With neither Wait nor NoWait, the wait ends when ctx is done or one of the
// session's own timeouts expires.
//
// If the tables are not acquired, the error is [ErrNotAcquired] with the holders of any
// of them, and the transaction is as before and can continue. It can also continue after
// [ErrDeadlock] and [ErrLockTableFull], and if a table does not exist (42P01, or 3F000
// for its schema; the error names it) or may not be locked (42501). Outside a transaction
// the error is [ErrNoTransaction]. ctx, and the state of the transaction after it ends,
// are as for [LockTx].
func LockTables(ctx context.Context, conn driver.Conn, tables TableList, opts ...TableOption) error {
	const op = "lock tables"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	if err := tables.check(op); err != nil {
		return err
	}
	return newTableLock(op, conn, tables, r).acquire(ctx)
}

// A TableList is a list of tables. Make one with [Tables].
type TableList struct {
	names []tableName
	err   error
}

// Tables makes a list of tables for [LockTables] and [DoTables]. Each element is a string
// or a model. A model is any value or pointer, even nil, with a method TableName()
// string, as in GORM. An ORM knows the tables of its other models:
//
//	statement := gorm.Statement{DB: db}
//	err := statement.Parse(&User{}) // GORM: statement.Schema.Table
//	db.Table(reflect.TypeFor[User]()).Name // Bun
//	user.Table // ent
//
// A name is spelled exactly as in Postgres, including capital letters: unlike in SQL,
// "Orders" is not orders. A dot separates the schema from the table; without one,
// search_path decides. A part that contains a dot is written in double quotes, with each
// double quote in it doubled: `app."odd.name"`.
//
// An invalid name makes the function that uses the list return an error.
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

// tableString returns the name of a table as the caller gave it.
func tableString(table any) (string, error) {
	if s, ok := table.(string); ok {
		return s, nil
	}
	v := reflect.ValueOf(table)
	if !v.IsValid() {
		return "", errors.New("nil is not a table")
	}
	// The method may be declared on the value or on the pointer, whichever was given.
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
	return "", fmt.Errorf("a %T is not a table: want a string, or a model with a method TableName() string; "+
		"for other models of GORM, Bun and ent see docs/orms.md", table)
}

// A tableName is a table and its schema, which may be "".
type tableName struct{ schema, table string }

// maxName is the maximum length of a name in bytes. Postgres truncates longer names
// silently, and might so lock another table.
const maxName = 63

// parseTableName parses a name as described for Tables.
func parseTableName(s string) (tableName, error) {
	var parts []string
	bad := func(why string) (tableName, error) {
		return tableName{}, fmt.Errorf("the table %q %s", termtext.Short(s), why)
	}
	rest := s
	for {
		var part string
		if strings.HasPrefix(rest, `"`) {
			end := closingQuote(rest)
			if end < 0 {
				return bad("has no closing double quote")
			}
			part, rest = strings.ReplaceAll(rest[1:end], `""`, `"`), rest[end+1:]
			if rest != "" && rest[0] != '.' {
				return bad("continues after a closing double quote")
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
			return bad("contains a zero byte")
		case !utf8.ValidString(part):
			return bad("is not UTF-8")
		case len(part) > maxName:
			return bad(fmt.Sprintf("is longer than the %d bytes that Postgres allows", maxName))
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
	return bad(`has more parts than schema and table: put a name that contains a dot in double quotes`)
}

// closingQuote returns the index of the quote that closes the one at the start of s, or
// -1.
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

// String returns the table for display.
func (n tableName) String() string {
	if n.schema == "" {
		return n.table
	}
	return n.schema + "." + n.table
}

// sql returns the table as an SQL identifier.
func (n tableName) sql() string {
	if n.schema == "" {
		return sqltext.Identifier(n.table)
	}
	return sqltext.Identifier(n.schema) + "." + sqltext.Identifier(n.table)
}

// newTableLock returns a txLock for tables.
func newTableLock(op string, conn driver.Conn, tables TableList, r request) *txLock {
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
		limit:   timeouts{whole: true, noSnapshot: true},
		holders: func(ctx context.Context) ([]Holder, error) {
			return tableHolders(ctx, conn, quoted, mode, r.only)
		},
	}
}

// lockTableSQL returns a LOCK statement for the quoted tables.
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

// tableHolders queries the sessions that conflict with a lock on tables.
func tableHolders(ctx context.Context, conn driver.Conn, quoted []string, mode Mode, only bool) ([]Holder, error) {
	// The query would take the snapshot of a REPEATABLE READ or SERIALIZABLE transaction,
	// in which the caller may still want to lock before it reads.
	level, err := query.Text(ctx, conn, "SHOW transaction_isolation")
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
	return queryHolders(ctx, conn, tableHoldersSQL, []string{string(tables), string(modes), strconv.FormatBool(only)})
}
