package render

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// SessionName names a session by its PID, or a prepared transaction by its name.
func SessionName(s *inspect.Session) string {
	switch {
	case s.Prepared != nil && s.Prepared.GID == "":
		return "a prepared transaction"
	case s.Prepared != nil:
		return "prepared transaction " + Quote(s.Prepared.GID)
	}
	return fmt.Sprintf("pid %d", s.PID)
}

// Session describes a session by its name, application and role.
func Session(s *inspect.Session) string {
	text := SessionName(s)
	switch {
	case s.Prepared != nil:
	case s.User == "": // not a client backend
		text += " (" + s.BackendType + ")"
	case s.Application == "":
		text += " (user " + s.User + ")"
	default:
		text += " (" + Quote(Application(s)) + ", user " + s.User + ")"
	}
	return termtext.Line(text)
}

// Holders describes in a sentence why the lock called title was not acquired because of err:
// who holds it, or when it is due.
func Holders(title string, err error) string {
	var e *pglock.Error
	isError := errors.As(err, &e)
	if isError && e.Due > 0 {
		return fmt.Sprintf("lock %s is not due for %s", Quote(title), Duration(e.Due))
	}
	if !isError || len(e.Holders) == 0 {
		return fmt.Sprintf("lock %s is held by another session", Quote(title))
	}
	var holders []string
	for _, h := range e.Holders {
		holders = append(holders, holder(h, title))
	}
	verb := "is held by"
	if !e.Holders[0].Granted {
		verb = "is waited for by"
	}
	return fmt.Sprintf("lock %s %s %s", Quote(title), verb, strings.Join(holders, "; "))
}

// holder describes a holder of the lock called title in the words of Session, with its
// host and when it began.
func holder(h pglock.Holder, title string) string {
	if h.Token != 0 { // a lease
		return h.String()
	}
	if h.PID == 0 {
		return "a prepared transaction"
	}
	if h.Application == ApplicationName("run", title) {
		h.Application = "pglock run " + title
	}
	h.Application = termtext.Cut(h.Application, maxQuoted)
	return h.String()
}

// HiddenNotice returns a notice about how to see the activity of count sessions that are
// hidden from user.
func HiddenNotice(count int, user string) []string {
	if count == 0 {
		return nil
	}
	grant := inspect.Server{User: user, SignalsAll: true}.Grants()[0]
	return []string{fmt.Sprintf("the activity of %s is hidden from this role; a superuser can show it: %s",
		Plural(count, "session", "sessions"), grant)}
}

// ApplicationText returns a session's application, and its type unless it is a client
// backend, after a space.
func ApplicationText(s *inspect.Session) string {
	text := ""
	if s.Application != "" {
		text += " " + Quote(Application(s))
	}
	if s.BackendType != "" && s.BackendType != "client backend" {
		text += " " + termtext.Line(s.BackendType)
	}
	return text
}

// OwnerText returns a session's role and database, after two spaces.
func OwnerText(s *inspect.Session) string {
	if s.User == "" && s.Database == "" {
		return ""
	}
	return "  " + termtext.Line(s.User+"@"+s.Database)
}

// WaitText describes what a session waits for and for how long.
func WaitText(p *inspect.Pair) string {
	about := ""
	if p.WaitApprox {
		about = "about "
	}
	return fmt.Sprintf("%s%s for %s on %s", about, Duration(p.WaitDuration), termtext.Line(p.Mode), termtext.Line(p.Target()))
}

// blockOf returns the attribute block of a pair: hard or soft.
func blockOf(p *inspect.Pair) any {
	block, _ := FindAttribute(inspect.PairAttributes(), "block")
	return block.PairValue(p)
}

// BlockText describes a hard or soft block by the session called above, after a comma.
func BlockText(p *inspect.Pair, above string) string {
	switch {
	case !p.Hard:
		return ", queued behind " + above + " (soft)"
	case p.Held != nil:
		return ", held in " + termtext.Line(p.Held.Mode)
	}
	return ", held"
}

// State describes the state of a session, after two spaces, or returns "" if it is unknown.
func State(s *inspect.Session) string {
	switch {
	case s.Prepared != nil:
		if s.Prepared.PreparedAt.IsZero() {
			return ""
		}
		return "  prepared " + Time(s.Prepared.PreparedAt)
	case s.Hidden:
		return "  (its activity is hidden from this role)"
	case s.State == "":
		return ""
	}
	text := "  " + termtext.Line(s.State)
	if s.Duration > 0 {
		text += " " + Duration(s.Duration)
	}
	if !s.XactStart.IsZero() && !s.StateChange.IsZero() {
		// Use the server's clock, as the durations do.
		since := s.StateChange
		if s.State == "active" && !s.QueryStart.IsZero() {
			since = s.QueryStart
		}
		if age := s.Duration + since.Sub(s.XactStart); age-s.Duration >= 100*time.Millisecond {
			text += ", in a transaction for " + Duration(age)
		}
	}
	return text
}

// sessionObject returns the attributes of a session as a JSON object.
func sessionObject(s *inspect.Session) Object {
	var o Object
	for _, a := range inspect.SessionAttributes() {
		o.Add(a.Name, a.Value(&inspect.Lock{Session: s}))
	}
	return o
}

// preparedObject returns a prepared transaction as a JSON object, or nil.
func preparedObject(p *inspect.Prepared) any {
	if p == nil || p.GID == "" {
		return nil
	}
	var o Object
	o.Add("gid", p.GID)
	o.Add("owner", p.Owner)
	o.Add("database", p.Database)
	o.Add("transactionid", p.TransactionID)
	o.Add("prepared_at", p.PreparedAt)
	o.Add("remedy", p.Remedy())
	return o
}
