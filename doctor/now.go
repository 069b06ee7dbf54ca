package doctor

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/internal/termtext"
)

var (
	//go:embed prepared.sql
	preparedSQL string

	//go:embed idle.sql
	idleSQL string
)

// maxListed is how many transactions of a kind are reported one by one.
const maxListed = 5

func checkNow(ctx context.Context, e *examination) ([]Finding, error) {
	sql, err := withAge(preparedSQL, e.age)
	if err != nil {
		return nil, err
	}
	prepared, err := ask[[]preparedTransaction](ctx, e, sql)
	if err != nil {
		return nil, err
	}
	findings := list("prepared", "no prepared transaction", e.age, prepared)
	if sql, err = withAge(idleSQL, e.age); err != nil {
		return nil, err
	}
	idle, err := ask[[]idleTransaction](ctx, e, sql)
	if err != nil {
		return findings, err
	}
	return append(findings, list("idle", "no idle transaction", e.age, idle)...), nil
}

// list returns the findings of transactions: the first ones, and how many more there are.
func list[T interface{ finding() Finding }](id, none string, age time.Duration, transactions []T) []Finding {
	if len(transactions) == 0 {
		return []Finding{{ID: id, Level: OK, Text: none + " older than " + short(age)}}
	}
	var findings []Finding
	for i, t := range transactions {
		if i == maxListed {
			findings = append(findings, Finding{ID: id, Level: Warning, Text: fmt.Sprintf("and %d more", len(transactions)-maxListed)})
			break
		}
		findings = append(findings, t.finding())
	}
	return findings
}

// A preparedTransaction is a row of prepared.sql.
type preparedTransaction struct {
	GID      string  `json:"gid"`
	Owner    string  `json:"owner"`
	Database string  `json:"database"`
	Age      float64 `json:"age"`
}

func (p preparedTransaction) finding() Finding {
	remedy := (&inspect.Prepared{GID: p.GID}).Remedy()
	return Finding{
		ID: "prepared", Level: Warning,
		Text:   termtext.Line(fmt.Sprintf("prepared transaction %q holds its locks for %s", p.GID, termtext.Duration(seconds(p.Age)))),
		Advice: []string{remedy + ";"},
		Note: termtext.Line(fmt.Sprintf("in database %q, as %q or a superuser; if its work is needed, COMMIT PREPARED",
			p.Database, p.Owner)),
	}
}

// An idleTransaction is a row of idle.sql.
type idleTransaction struct {
	PID         int32   `json:"pid"`
	Application string  `json:"application"`
	User        string  `json:"user"`
	Database    string  `json:"database"`
	Age         float64 `json:"age"`
	XactStart   int64   `json:"xact_start"` // in microseconds
	Locks       int     `json:"locks"`
}

// finding has a statement that ends the session only if it is still in this transaction.
func (i idleTransaction) finding() Finding {
	start := time.UnixMicro(i.XactStart).UTC().Format("2006-01-02 15:04:05.000000-07")
	return Finding{
		ID: "idle", Level: Warning,
		Text: fmt.Sprintf("%s is idle in a transaction for %s and holds %s",
			termtext.Session(i.PID, i.Application, i.User, termtext.Line("database "+i.Database)),
			termtext.Duration(seconds(i.Age)), plural(i.Locks, "lock")),
		Advice: []string{fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %d AND xact_start = %s;",
			i.PID, sqltext.Literal(start))},
		Note: "rolls its work back; or pglock terminate",
	}
}
