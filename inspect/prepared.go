package inspect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/termtext"
)

// Prepared is a transaction that was prepared for two-phase commit and waits for
// its second phase: it has locks and no process, survives a restart of the
// server, and no signal ends it (PostgreSQL manual, 53.17 "pg_prepared_xacts"
// and PREPARE TRANSACTION).
type Prepared struct {
	GID           string    // the name that it was given
	Owner         string    // the role that prepared it
	Database      string    // where it can be ended
	TransactionID uint32    // its number
	PreparedAt    time.Time // when it was prepared
}

// Remedy is the statement that ends the transaction and frees its locks, by
// undoing its work. It is to be run in Database, by Owner or a superuser. COMMIT
// PREPARED ends it too, and keeps the work: only who prepared it knows which.
func (p *Prepared) Remedy() string { return "ROLLBACK PREPARED " + literal(p.GID) }

// literal is a string as SQL writes it, whatever standard_conforming_strings is.
// What a terminal might obey, or not show, is escaped.
func literal(s string) string {
	escape := ""
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\'':
			b.WriteString("''")
			continue
		case r == '\\':
			b.WriteString(`\\`)
		case termtext.Shows(r):
			b.WriteRune(r)
			continue
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		escape = "E"
	}
	return escape + "'" + b.String() + "'"
}

// prepared is a Prepared as a Session.
type prepared struct{ session *Session }

// parsePrepared reads a row of pg_prepared_xacts as JSON.
func parsePrepared(text string) (prepared, error) {
	var row struct {
		Transaction string    `json:"transaction"`
		GID         string    `json:"gid"`
		Prepared    time.Time `json:"prepared"`
		Owner       string    `json:"owner"`
		Database    string    `json:"database"`
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return prepared{}, fmt.Errorf("inspect: a row of pg_prepared_xacts: %w", err)
	}
	id, err := strconv.ParseUint(row.Transaction, 10, 32)
	if err != nil {
		return prepared{}, fmt.Errorf("inspect: the number of a prepared transaction: %w", err)
	}
	p := &Prepared{
		GID:           row.GID,
		Owner:         row.Owner,
		Database:      row.Database,
		TransactionID: uint32(id),
		PreparedAt:    row.Prepared.UTC(),
	}
	return prepared{&Session{
		User:        p.Owner,
		Database:    p.Database,
		StateChange: p.PreparedAt,
		State:       statePrepared,
		Prepared:    p,
	}}, nil
}

// statePrepared is the State of a prepared transaction; it is not one of Postgres'.
const statePrepared = "prepared"

// resolvePrepared gives the locks of prepared transactions their sessions. Such
// a lock has no pid. What it has is the virtual number of the transaction, which
// it shares with the lock that each transaction holds on its own number, which
// pg_prepared_xacts has too. (In older versions the virtual number was -1/number
// once the server had restarted.)
func (r *reading) resolvePrepared() {
	if len(r.prepared) == 0 {
		return
	}
	byNumber := map[uint32]*Session{}
	byVirtual := map[string]*Session{}
	for _, p := range r.prepared {
		p.session.age(r.server.Time)
		id := p.session.Prepared.TransactionID
		byNumber[id] = p.session
		byVirtual["-1/"+strconv.FormatUint(uint64(id), 10)] = p.session
	}
	each := func(do func(l *Lock)) {
		for _, locks := range [][]Lock{r.locks, r.aside} {
			for i := range locks {
				if l := &locks[i]; l.Session == r.nobody {
					do(l)
				}
			}
		}
	}
	each(func(l *Lock) {
		if s := byNumber[l.TransactionID]; s != nil && l.Type == typeTransactionID && l.Granted {
			byVirtual[l.Transaction] = s
		}
	})
	each(func(l *Lock) {
		if s := byVirtual[l.Transaction]; s != nil {
			l.Session = s
		}
	})
}
