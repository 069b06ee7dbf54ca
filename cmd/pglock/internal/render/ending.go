package render

import (
	"fmt"
	"io"
	"slices"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

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
	switch o.Reason {
	case "":
		return !e.Wait || o.Ended || e.DryRun
	case inspect.Gone, inspect.NotBlocking, inspect.Queued, inspect.Waiting, inspect.Excluded:
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
	text := fmt.Sprintf("%s %s %s: %s", SessionName(o.Victim.Session), not, e.PastTense(), termtext.Line(o.Detail))
	if o.Signaled { // but did not end in time
		text = fmt.Sprintf("%s: %s", SessionName(o.Victim.Session), termtext.Line(o.Detail))
	}
	switch {
	case o.Grant != "":
		text += "; a superuser can allow it: " + termtext.Line(o.Grant)
	case o.Reason == inspect.Idle:
		text += fmt.Sprintf("; use pglock terminate %d", o.Victim.PID)
	case o.Class != "":
		text += "; use --allow " + string(o.Class)
	}
	return text
}

// Describe describes in a sentence what was done to a session, or why nothing was.
func (e Ending) Describe(o inspect.Outcome) string {
	if !o.Signaled || e.Wait && !o.Ended {
		return e.Explain(o)
	}
	text := Session(o.Victim.Session) + " was " + e.PastTense()
	if e.DryRun {
		text = Session(o.Victim.Session) + " would be " + e.PastTense()
	}
	return text
}

// Status returns the outcome in the words of docs/command.md.
func Status(o inspect.Outcome) string {
	switch o.Reason {
	case "":
		return "signaled"
	case inspect.Queued, inspect.Waiting, inspect.Excluded: // it need not be ended, or no longer matched when the answer came
		return "spared"
	case inspect.Protected, inspect.Wraparound, inspect.NoProcess:
		return "refused"
	case inspect.Hidden:
		return string(inspect.NotPermitted)
	}
	return string(o.Reason)
}

// word returns an outcome in a word or two.
func (e Ending) word(o inspect.Outcome) string {
	switch {
	case o.Signaled && e.DryRun:
		return "would be " + e.PastTense()
	case o.Signaled && e.Wait && !o.Ended:
		return "not gone yet"
	case o.Signaled:
		return e.PastTense()
	}
	return Status(o)
}

// Write writes a row or an object for each outcome.
func (e Ending) Write(out io.Writer, outcomes []inspect.Outcome, f Format) error {
	if f.Name == "json" {
		return e.writeJSON(out, outcomes)
	}
	t := &Table{Format: f}
	for _, name := range []string{"pid", "user", "application", "state", "duration", "query"} {
		a, _ := FindAttribute(inspect.SessionAttributes(), name)
		t.Columns = append(t.Columns, a)
	}
	if f.IsMachine() {
		t.Columns = inspect.SessionAttributes()
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
				return o.Detail
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
		object.Add("status", Status(o))
		object.Add("ended", o.Ended)
		object.Add("reason", orNull(o.Detail))
		object.Add("grant", orNull(o.Grant))
		object.Add("allow", orNull(string(o.Class)))
		objects = append(objects, object)
	}
	return WriteObjects(out, objects)
}

func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}
