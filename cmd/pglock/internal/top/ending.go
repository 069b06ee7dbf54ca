package top

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// oldTransaction is the age from which ending a transaction is grave: it may have done much.
const oldTransaction = 10 * time.Minute

// A box asks before sessions are ended. It keeps them as they were when the key was
// pressed, whatever is read meanwhile.
type box struct {
	action   action
	database int
	victims  []inspect.Victim
	who      []string // the sessions
	facts    []string // what ending them means
	grave    string   // why y does not suffice, or ""

	stage    stage
	outcomes []inspect.Outcome // of the dry run
	err      string            // why it failed
	focus    bool              // on the answer that ends, not on the one that keeps
	typed    string            // the PID
	problem  string            // what is wrong with it
}

// A stage is how far a box is.
type stage int

const (
	checking stage = iota // the dry run is on its way
	asking
	refused // the dry run says that nothing can be done
	working // the signal is on its way
)

// confirmation is what must be typed where ending is grave.
func (b *box) confirmation() string { return strconv.Itoa(int(b.victims[0].PID)) }

// ask opens the box for the marked sessions, or else for the selected one, and begins with
// a dry run.
func (m *model) ask(a action) tea.Cmd {
	if reason := m.whyNotEnd(); reason != "" {
		m.notify(reason)
		return nil
	}
	d := m.db()
	sessions, problem := m.chosen()
	if problem != "" {
		m.notify(problem)
		return nil
	}
	victims := d.picture.victims(sessions)
	b := &box{action: a, database: m.current, victims: victims}
	b.who = describe(victims)
	b.facts = d.picture.facts(a, victims)
	b.grave = grave(victims)
	m.box, m.page = b, noPage
	ctx := m.ctx
	return func() tea.Msg {
		outcomes, err := d.end(ctx, a, victims, true)
		return checkedMsg{b, outcomes, err}
	}
}

// chosen returns the marked sessions, or else the selected one, or why there is none.
func (m *model) chosen() (sessions []*inspect.Session, problem string) {
	d := m.db()
	for key := range d.marked {
		if s := d.picture.find(key); s != nil {
			sessions = append(sessions, s)
		}
	}
	slices.SortFunc(sessions, func(a, b *inspect.Session) int { return int(a.PID - b.PID) })
	if len(sessions) > 0 {
		return sessions, ""
	}
	r := m.list().selected()
	switch {
	case r == nil || r.subject() == nil:
		return nil, "select a session first"
	case r.gone:
		return nil, render.SessionName(r.subject()) + " is gone, or no longer here"
	}
	// What is shown of it may be older than what is known.
	s := d.picture.find(keyOf(r.subject()))
	if s == nil {
		return nil, render.SessionName(r.subject()) + " is gone"
	}
	return []*inspect.Session{s}, ""
}

// grave returns why the PID must be typed to end sessions, or "".
func grave(victims []inspect.Victim) string {
	if len(victims) > 1 {
		return fmt.Sprintf("these are %d sessions", len(victims))
	}
	v := victims[0]
	var reasons []string
	if v.XactDuration >= oldTransaction {
		reasons = append(reasons, "its transaction is "+render.Duration(v.XactDuration)+" old")
	}
	if v.BackendXID != 0 {
		reasons = append(reasons, "it has a transaction ID, and what it wrote is rolled back")
	}
	return strings.Join(reasons, "; ")
}

// describe returns lines about the sessions to be ended.
func describe(victims []inspect.Victim) []string {
	const most = 4
	var lines []string
	for i, v := range victims {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(victims)-most))
			break
		}
		from := ""
		if v.Client != "" {
			from = " from " + termtext.Line(v.Client)
		}
		lines = append(lines, render.Session(v.Session)+from+render.State(v.Session), written(v.Session))
	}
	return lines
}

// facts returns what ending sessions means, and what else could be done.
func (p *picture) facts(a action, victims []inspect.Victim) []string {
	var facts []string
	if a == cancelAction {
		facts = append(facts, "its statement is canceled, which aborts its transaction; it stays connected")
	} else {
		facts = append(facts, "its transaction is rolled back, its locks are released, its client is disconnected")
	}
	facts = append(facts, p.frees(victims))
	if other := p.otherWay(victims); other != "" {
		facts = append(facts, other)
	}
	return facts
}

// written describes whether a session has changed anything in its transaction.
func written(s *inspect.Session) string {
	switch {
	case s.BackendXID != 0:
		return fmt.Sprintf("has transaction ID %d, so it has written or is about to", s.BackendXID)
	case s.Hidden:
		return "whether it has written is not known"
	case s.XactStart.IsZero():
		return "is in no transaction"
	}
	return "has no transaction ID, so it has written nothing"
}

// frees describes which sessions go on when the victims have ended.
func (p *picture) frees(victims []inspect.Victim) string {
	isVictim := map[sessionKey]bool{}
	for _, v := range victims {
		isVictim[keyOf(v.Session)] = true
	}
	// A session goes on if all that block it are victims or go on.
	blockers := map[sessionKey][]sessionKey{}
	names := map[sessionKey]string{}
	var waiters []sessionKey // the longest wait first
	for i := range p.Pairs {
		pair := &p.Pairs[i]
		k := keyOf(pair.Session)
		if blockers[k] == nil {
			waiters = append(waiters, k)
			names[k] = render.SessionName(pair.Session)
		}
		blockers[k] = append(blockers[k], keyOf(pair.Blocking))
	}
	free := map[sessionKey]bool{}
	var freed []sessionKey
	for changed := true; changed; {
		changed = false
		for _, k := range waiters {
			if free[k] || isVictim[k] || slices.ContainsFunc(blockers[k], func(b sessionKey) bool { return !isVictim[b] && !free[b] }) {
				continue
			}
			free[k], changed = true, true
			freed = append(freed, k)
		}
	}
	others := map[sessionKey]bool{}
	for _, k := range waiters {
		if !free[k] && slices.ContainsFunc(blockers[k], func(b sessionKey) bool { return isVictim[b] }) {
			others[k] = true
		}
	}
	text := "nobody waits for it"
	if len(freed) > 0 {
		text = fmt.Sprintf("frees %d: %s", len(freed), names[freed[0]])
		if len(freed) > 1 {
			text += fmt.Sprintf(", then %d behind it", len(freed)-1)
		}
	}
	if len(others) > 0 {
		more := render.Plural(len(others), "session waits", "sessions wait") + " for it and for others too"
		if len(freed) > 0 {
			return text + "; " + more
		}
		return "frees none: " + more
	}
	return text
}

// otherWay returns a smaller harm than ending the victim, or "".
func (p *picture) otherWay(victims []inspect.Victim) string {
	if len(victims) > 1 {
		return ""
	}
	v := victims[0]
	var head *inspect.Tree // the waiter with the longest queue behind it
	var visit func(t *inspect.Tree)
	visit = func(t *inspect.Tree) {
		if keyOf(t.Session) == keyOf(v.Session) {
			for _, b := range t.Blocked {
				if b.Pair.Hard && b.Behind > 0 && (head == nil || b.Behind > head.Behind) {
					head = b
				}
			}
		}
		for _, b := range t.Blocked {
			visit(b)
		}
	}
	for _, t := range p.all {
		visit(t)
	}
	switch {
	case head != nil:
		return fmt.Sprintf("or cancel %s%s: the %d behind it go on at once, and it can be tried again later",
			render.SessionName(head.Session), render.ApplicationText(head.Session), head.Behind)
	case v.State == "active" && len(p.blockedBy(v.Session)) > 0 && v.WaitEventType != "Lock":
		return "or wait: it runs a statement, and may soon be done"
	}
	return ""
}

// blockedBy returns the pairs in which a session blocks others.
func (p *picture) blockedBy(s *inspect.Session) []*inspect.Pair {
	var pairs []*inspect.Pair
	for i := range p.Pairs {
		if keyOf(p.Pairs[i].Blocking) == keyOf(s) {
			pairs = append(pairs, &p.Pairs[i])
		}
	}
	return pairs
}

// checked takes the result of the dry run.
func (m *model) checked(msg checkedMsg) {
	b := msg.box
	if m.box != b {
		return // it was closed meanwhile
	}
	b.outcomes = msg.outcomes
	switch {
	case msg.err != nil:
		b.stage, b.err = refused, m.describe(msg.err)
	case slices.ContainsFunc(msg.outcomes, func(o inspect.Outcome) bool { return o.Signaled }):
		b.stage = asking
	default:
		b.stage = refused
	}
}

// boxKey handles a key while the box is open.
func (m *model) boxKey(key tea.KeyPressMsg) tea.Cmd {
	b := m.box
	name := key.String()
	if name == "esc" || b.stage != asking && slices.Contains([]string{"q", "enter", "n"}, name) {
		m.closeBox()
		return nil
	}
	if b.stage != asking {
		return nil
	}
	if b.grave != "" {
		return m.typePID(key)
	}
	switch name {
	case "y":
		return m.endVictims()
	case "n", "q":
		m.closeBox()
	case "left", "right", "tab", "shift+tab", "h", "l":
		b.focus = !b.focus
	case "enter":
		if b.focus {
			return m.endVictims()
		}
		m.closeBox()
	}
	return nil
}

// typePID handles a key while the PID is typed.
func (m *model) typePID(key tea.KeyPressMsg) tea.Cmd {
	b := m.box
	b.problem = ""
	switch name := key.String(); {
	case name == "enter" && b.typed == "":
		m.closeBox()
	case name == "enter" && b.typed == b.confirmation():
		return m.endVictims()
	case name == "enter":
		b.problem = b.typed + " is not " + b.confirmation() + "; nothing was ended"
		b.typed = ""
	case name == "backspace" && b.typed != "":
		b.typed = b.typed[:len(b.typed)-1]
	case len(key.Text) == 1 && key.Text >= "0" && key.Text <= "9" && len(b.typed) < 10:
		b.typed += key.Text
	case name == "q" || name == "n":
		m.closeBox()
	}
	return nil
}

// closeBox closes the box. A signal that was sent still has its outcome in the log.
func (m *model) closeBox() {
	if m.box.stage == asking || m.box.stage == checking {
		m.notify("nothing was ended")
	}
	m.box = nil
}

// endVictims ends the sessions of the box. The statement that signals compares them again.
func (m *model) endVictims() tea.Cmd {
	b, ctx := m.box, m.ctx
	d := m.databases[b.database]
	if d.lost() {
		b.stage, b.err = refused, "the connection is lost"
		return nil
	}
	b.stage = working
	return func() tea.Msg {
		outcomes, err := d.end(ctx, b.action, b.victims, false)
		return endedMsg{b, outcomes, err}
	}
}

// errUnknown explains an error while a signal was sent.
var errUnknown = errors.New("it is not known whether the signal was sent")

// ended shows and records what ending sessions did.
func (m *model) ended(msg endedMsg) {
	if m.box == msg.box {
		m.box = nil
	}
	d := m.databases[msg.box.database]
	clear(d.marked)
	name := ""
	if d.Name != "" {
		name = d.Name + ": "
	}
	for _, o := range msg.outcomes {
		m.record(name + msg.box.action.ending().Describe(o))
	}
	if msg.err != nil {
		m.record(fmt.Sprintf("%s%s: %s; %v", name, msg.box.action, m.describe(msg.err), errUnknown))
	} else if n := len(msg.outcomes); n > 1 {
		done := 0
		for _, o := range msg.outcomes {
			if msg.box.action.ending().Succeeded(o) {
				done++
			}
		}
		m.notify(fmt.Sprintf("%s%s: %d of %d; L shows each", name, msg.box.action.ending().PastTense(), done, n))
	}
}
