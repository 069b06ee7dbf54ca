package engine

import (
	_ "embed"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// The statements of leases, in the schema pglock. None of them waits for a row that a
// caller's transaction may have locked.
var (
	//go:embed sql/lease/open.sql
	leaseOpenFile string
	//go:embed sql/lease/renew.sql
	leaseRenewFile string
	//go:embed sql/lease/close.sql
	leaseCloseFile string
	//go:embed sql/lease/end.sql
	leaseEndFile string
	//go:embed sql/lease/seed.sql
	leaseSeedFile string
	//go:embed sql/lease/take.sql
	leaseTakeFile string
	//go:embed sql/lease/release.sql
	leaseReleaseFile string
	//go:embed sql/lease/owned.sql
	leaseOwnedFile string
	//go:embed sql/lease/want.sql
	leaseWantFile string
	//go:embed sql/lease/notify.sql
	leaseNotifyFile string
	//go:embed sql/lease/sweep.sql
	leaseSweepFile string
)

// leaseStatements are the statements of leases, in one schema.
type leaseStatements struct {
	open, renew, close, end, seed, take, release, owned, want, notify, sweep string
}

// newLeaseStatements returns the statements for the tables in a schema.
func newLeaseStatements(schema string) leaseStatements {
	in := func(file string) string { return sqltext.InSchema(sqltext.WithoutComment(file), schema) }
	return leaseStatements{
		open: in(leaseOpenFile), renew: in(leaseRenewFile), close: in(leaseCloseFile), end: in(leaseEndFile),
		seed: in(leaseSeedFile), take: in(leaseTakeFile), release: in(leaseReleaseFile), owned: in(leaseOwnedFile),
		want: in(leaseWantFile), notify: in(leaseNotifyFile), sweep: in(leaseSweepFile),
	}
}

// A textArray builds the text of a Postgres array.
type textArray struct{ b strings.Builder }

func (a *textArray) separate() {
	if a.b.Len() == 0 {
		a.b.WriteByte('{')
	} else {
		a.b.WriteByte(',')
	}
}

// add adds a string.
func (a *textArray) add(s string) {
	a.separate()
	a.b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			a.b.WriteByte('\\')
		}
		a.b.WriteByte(s[i])
	}
	a.b.WriteByte('"')
}

// addRaw adds a number or a boolean.
func (a *textArray) addRaw(s string) {
	a.separate()
	a.b.WriteString(s)
}

func (a *textArray) addInt(n int64) { a.addRaw(strconv.FormatInt(n, 10)) }

// String returns the array.
func (a *textArray) String() string {
	if a.b.Len() == 0 {
		return "{}"
	}
	return a.b.String() + "}"
}

// leaseKeys returns the names and slots of the keys of ops, as statement arguments.
func leaseKeys(ops []op) (names, slots string) {
	var n, s textArray
	for _, o := range ops {
		n.add(o.key.Name)
		s.addInt(int64(o.key.Slot))
	}
	return n.String(), s.String()
}

// A takeReply is what take.sql replies about one lease.
type takeReply struct {
	kind  byte   // t if it was taken; otherwise one of m u e h d b: see take.sql
	value int64  // a token or milliseconds
	owner string // of kind e
}

// parseTake parses the result of take.sql for n leases.
func parseTake(reply string, n int) (alive bool, replies []takeReply, ok bool) {
	fields := strings.Fields(reply)
	if len(fields) < n+2 || fields[0] != "0" && fields[0] != "1" || fields[n+1] != "|" {
		return false, nil, false
	}
	replies = make([]takeReply, n)
	for i, field := range fields[1 : n+1] {
		r := takeReply{kind: field[0]}
		switch r.kind {
		case 'm', 'h', 'd':
			value, err := strconv.ParseInt(field[1:], 10, 64)
			if err != nil || value < 0 {
				return false, nil, false
			}
			r.value = value
		case 'e':
			r.owner = field[1:]
		case 'u', 'b':
		default:
			return false, nil, false
		}
		replies[i] = r
	}
	for _, field := range fields[n+2:] {
		number, token, _ := strings.Cut(field, ":")
		i, err1 := strconv.Atoi(number)
		value, err2 := strconv.ParseInt(token, 10, 64)
		if err1 != nil || err2 != nil || i < 1 || i > n || value <= 0 {
			return false, nil, false
		}
		replies[i-1] = takeReply{kind: 't', value: value}
	}
	return fields[0] == "1", replies, true
}

// parseRelease parses the result of release.sql for n leases. It returns a character for
// each: 1 if it was released, 2 if somebody listens for that, and otherwise l, f or 0: see
// release.sql.
func parseRelease(reply string, n int) ([]byte, bool) {
	before, freed, found := strings.Cut(reply, "|")
	if !found || len(before) != n || strings.Trim(before, "lf0") != "" {
		return nil, false
	}
	replies := []byte(before)
	for _, field := range strings.Fields(freed) {
		number, wanted := strings.CutSuffix(field, "+")
		i, err := strconv.Atoi(number)
		if err != nil || i < 1 || i > n {
			return nil, false
		}
		replies[i-1] = '1'
		if wanted {
			replies[i-1] = '2'
		}
	}
	return replies, true
}
