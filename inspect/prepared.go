package inspect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// A Prepared is a transaction that was prepared for two-phase commit and not
// finished. It holds locks without a process, survives a restart of the server, and
// cannot be ended by a signal (PostgreSQL manual, 53.17 "pg_prepared_xacts" and
// PREPARE TRANSACTION).
type Prepared struct {
	GID           string    // its name
	Owner         string    // the role that prepared it
	Database      string    // the database in which it can be ended
	TransactionID uint32    // its transaction ID
	PreparedAt    time.Time // when it was prepared
}

// Remedy returns the statement that rolls back the transaction and releases its
// locks. Run it in Database, as Owner or a superuser. COMMIT PREPARED ends it too and
// keeps the work: only its owner knows which is right.
func (p *Prepared) Remedy() string { return "ROLLBACK PREPARED " + sqltext.Literal(p.GID) }

// prepared wraps a Prepared as a Session.
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
		return prepared{}, fmt.Errorf("inspect: the transaction ID of a prepared transaction: %w", err)
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

// statePrepared is the State of a prepared transaction; it is not a state of
// Postgres.
const statePrepared = "prepared"

// resolvePrepared assigns the locks of prepared transactions to their sessions. Such
// a lock has no PID, but a virtual transaction ID. Each transaction also holds a lock
// on its own transaction ID, which has the same virtual transaction ID, and
// pg_prepared_xacts has the transaction ID. (In older versions the virtual
// transaction ID was -1/transaction ID after a restart of the server.)
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
		for _, locks := range [][]Lock{r.locks, r.sideLocks} {
			for i := range locks {
				if l := &locks[i]; l.Session == r.unowned {
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
