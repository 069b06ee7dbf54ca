package render

import (
	"fmt"
	"io"
	"slices"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// Spared is the status of a session that need not be ended, or that no longer matched
// when the answer came.
const Spared inspect.Status = "spared"

// An Ending shows what cancel or terminate did to sessions.
type Ending struct {
	Terminate bool           // sessions are terminated, else their statements are canceled
	DryRun    bool           // nothing was done yet
	Wait      bool           // terminate waits until the sessions are gone
	Behind    map[string]int // how many sessions wait behind each session, by SessionName
}

// PastTense returns what is done to sessions, in the past tense.
func (e Ending) PastTense() string {
	if e.Terminate {
		return "terminated"
	}
	return "canceled"
}

// Succeeded reports whether a session no longer blocks.
func (e Ending) Succeeded(o inspect.Outcome) bool {
	switch o.Status {
	case inspect.Signalled:
		return !e.Wait || o.Ended || e.DryRun
	case inspect.Gone, inspect.NotBlocking, Spared:
		return true
	}
	return false
}

// Explain describes why a session was not ended, and what helps.
func (e Ending) Explain(o inspect.Outcome) string {
	not := "was not"
	if e.DryRun {
		not = "would not be"
	}
	text := fmt.Sprintf("%s %s %s: %s", SessionName(o.Victim.Session), not, e.PastTense(), termtext.Line(o.Reason))
	if o.Status == inspect.Signalled { // but did not end in time
		text = fmt.Sprintf("%s: %s", SessionName(o.Victim.Session), termtext.Line(o.Reason))
	}
	switch {
	case o.Grant != "":
		text += "; a superuser can allow it: " + termtext.Line(o.Grant)
	case o.Status == inspect.Idle:
		text += fmt.Sprintf("; use pglock terminate %d", o.Victim.PID)
	case o.Protected != "":
		text += "; use --allow " + string(o.Protected)
	}
	return text
}

// word returns an outcome in a word or two.
func (e Ending) word(o inspect.Outcome) string {
	signaled := o.Status == inspect.Signalled
	switch {
	case signaled && e.DryRun:
		return "would be " + e.PastTense()
	case signaled && e.Wait && !o.Ended:
		return "not gone yet"
	case signaled:
		return e.PastTense()
	}
	return string(o.Status)
}

// Write writes a row or an object for each outcome.
func (e Ending) Write(out io.Writer, outcomes []inspect.Outcome, f Format) error {
	if f.Name == "json" {
		return e.writeJSON(out, outcomes)
	}
	t := &Table{Format: f}
	for _, name := range []string{"pid", "user", "application", "state", "duration", "query"} {
		a, _ := FindAttribute(sessionAttributes(), name)
		t.Columns = append(t.Columns, a)
	}
	if f.IsMachine() {
		t.Columns = sessionAttributes()
	}
	query := len(t.Columns) - 1
	t.Columns = slices.Insert(t.Columns, query, inspect.Attribute{Name: "blocks"})
	t.Columns = append(t.Columns, inspect.Attribute{Name: "outcome"})
	if f.IsMachine() || f.Expanded {
		t.Columns = append(t.Columns, inspect.Attribute{Name: "reason"})
	}
	for _, o := range outcomes {
		t.add(false, func(a inspect.Attribute) any {
			switch a.Name {
			case "blocks":
				return int64(e.Behind[SessionName(o.Victim.Session)])
			case "outcome":
				return e.word(o)
			case "reason":
				return o.Reason
			case "application":
				switch {
				case f.IsMachine():
				case o.Victim.Prepared != nil:
					return SessionName(o.Victim.Session)
				default:
					return Application(o.Victim.Session)
				}
			}
			return a.Value(&inspect.Lock{Session: o.Victim.Session})
		})
	}
	return t.Write(out)
}

// writeJSON writes the outcomes in the format of docs/command.md.
func (e Ending) writeJSON(out io.Writer, outcomes []inspect.Outcome) error {
	var objects []Object
	for _, o := range outcomes {
		object := sessionObject(o.Victim.Session)
		object.Add("prepared", preparedObject(o.Victim.Prepared))
		object.Add("blocks", e.Behind[SessionName(o.Victim.Session)])
		object.Add("status", string(o.Status))
		object.Add("ended", o.Ended)
		object.Add("reason", orNull(o.Reason))
		object.Add("grant", orNull(o.Grant))
		object.Add("allow", orNull(string(o.Protected)))
		objects = append(objects, object)
	}
	return WriteObjects(out, objects)
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
