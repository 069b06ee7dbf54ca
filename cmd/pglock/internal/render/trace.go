package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
	"github.com/pglock-go/pglock/trace"
)

// A Trace shows the reports of package trace.
type Trace struct {
	Place string // where the statements ran, such as "on a copy of the schema"
	Width int    // of the terminal; 0 for no limit
	Color bool
	ASCII bool
}

// The first column of a statement's text, and that of what a finding advises.
const (
	traceIndent  = "   "
	adviceIndent = "       "
)

// Write writes reports for people.
func (t Trace) Write(out io.Writer, reports []*trace.Report) error {
	var b strings.Builder
	for i, r := range reports {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(t.paint(Bold, t.title(r)) + "\n")
		for _, note := range r.Script.Notes {
			b.WriteString(termtext.Line(note) + "\n")
		}
		for _, s := range r.Statements {
			b.WriteString("\n")
			t.writeStatement(&b, r, s)
		}
		if len(r.Statements) == 0 {
			b.WriteString("no statements\n")
		}
		b.WriteString("\n" + t.total(r) + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// title returns what was run, how and where.
func (t Trace) title(r *trace.Report) string {
	how := map[trace.Wrap]string{
		trace.WrapFile: "as one transaction", trace.WrapStatement: "each statement a transaction", trace.WrapNone: "statement by statement",
	}[r.Script.Wrap]
	if r.RolledBack {
		how = "as one transaction"
	}
	if r.Script.Format != trace.Plain {
		how += ", as " + string(r.Script.Format) + " runs it"
	}
	return fmt.Sprintf("%s, %s, %s (Postgres %d)", termtext.Line(r.Script.Name), how, termtext.Line(t.Place), r.Major)
}

func (t Trace) writeStatement(b *strings.Builder, r *trace.Report, s trace.Statement) {
	number := fmt.Sprintf("%-*s", len(traceIndent), fmt.Sprint(s.Number))
	sql := termtext.Line(strings.Join(strings.Fields(s.Piece.SQL), " "))
	if t.Width > len(traceIndent)+minText {
		sql = termtext.Cut(sql, t.Width-len(number))
	}
	fmt.Fprintf(b, "%s%s\n", number, t.paint(Bold, sql))
	line := func(color, text string) {
		for _, part := range wrapText(text, t.Width-len(traceIndent)) {
			fmt.Fprintf(b, "%s%s\n", traceIndent, t.paint(color, part))
		}
	}
	switch {
	case s.Err != nil:
		line(Red, t.cross()+" "+termtext.Line(s.Err.Error()))
		if rest := len(r.Script.Pieces) - s.Number; rest > 0 {
			line("", Plural(rest, "statement after it was", "statements after it were")+" not run")
		}
		return
	case s.Skipped != "":
		line(Dim, "not run: "+s.Skipped)
	case s.Control:
		return
	}
	for _, l := range lockLines(r, s) {
		line("", l)
	}
	for _, l := range effectLines(r, s) {
		line("", l)
	}
	if s.Outside && s.Skipped == "" {
		line(Dim, "ran outside of a transaction; its locks were seen while it was made to wait, and may be held only for a part of it")
	}
	if s.WaitsForTransactions {
		line("", "waits for every transaction that is older, whatever it does")
	}
	for _, l := range blockerLines(r, s) {
		line(Yellow, l)
	}
	for _, f := range s.Findings {
		t.writeFinding(b, f)
	}
}

func (t Trace) writeFinding(b *strings.Builder, f trace.Finding) {
	if f.Ignored {
		fmt.Fprintf(b, "%s%s\n", traceIndent, t.paint(Dim, "ignored: "+f.Rule))
		return
	}
	for i, part := range wrapText(f.Rule+": "+termtext.Line(f.Text), t.Width-len(traceIndent)-2) {
		mark := "  "
		if i == 0 {
			mark = t.paint(Yellow, "!") + " "
			part = strings.Replace(part, f.Rule, t.paint(Yellow, f.Rule), 1)
		}
		fmt.Fprintf(b, "%s%s%s\n", traceIndent, mark, part)
	}
	for _, part := range wrapText(termtext.Line(f.Note), t.Width-len(adviceIndent)-3) {
		fmt.Fprintf(b, "%s%s\n", adviceIndent, t.paint(Dim, "-- "+part))
	}
	for _, sql := range f.Safer { // never broken, so that they can be copied
		fmt.Fprintf(b, "%s%s\n", adviceIndent, t.paint(Bold, termtext.Lines(sql)))
	}
}

func (t Trace) cross() string {
	if t.ASCII {
		return "x"
	}
	return "✗"
}

func (t Trace) paint(color, text string) string {
	if !t.Color {
		return text
	}
	return Paint(color, text)
}

// wrapText breaks text between words.
func wrapText(text string, width int) []string {
	if width < minText {
		return []string{text}
	}
	return Diagnosis{Width: width + textIndent}.wrap(text, "")
}

// lockLines returns a line for each relation that the statement locks.
func lockLines(r *trace.Report, s trace.Statement) []string {
	var lines []string
	for _, l := range s.Strongest() {
		line := l.Mode.PgLocks() + " on " + termtext.Line(l.Relation.SQL)
		switch {
		case l.Relation.Table != "":
			line += ", an index of " + termtext.Line(l.Relation.Table)
		case l.Relation.Kind != "table":
			line += ", a " + l.Relation.Kind
		}
		lines = append(lines, line+": "+stopped(r, l))
	}
	for _, l := range s.Held {
		if !slices.ContainsFunc(s.Locks, func(o trace.Lock) bool { return o.Relation.OID == l.Relation.OID && o.Mode >= l.Mode }) {
			lines = append(lines, fmt.Sprintf("%s on %s, still held since statement %d: %s", l.Mode.PgLocks(), termtext.Line(l.Relation.SQL), l.Since, stopped(r, l)))
		}
	}
	if len(s.Locks) == 0 && len(lines) == 0 && s.Skipped == "" {
		lines = append(lines, "locks no relation that existed before")
	}
	return lines
}

// stopped returns whom a lock stops, and how many they are.
func stopped(r *trace.Report, l trace.Lock) string {
	reads, writes := l.StopsReads(), l.StopsWrites()
	text := "stops neither reads nor writes"
	switch {
	case reads:
		text = "stops reads and writes"
	case writes:
		text = "stops writes"
	case l.Mode.Conflicts(pglock.ShareUpdateExclusive):
		text += ", but VACUUM and other changes of the schema"
	}
	if r.Traffic == nil || !reads && !writes {
		return text
	}
	traffic, ok := r.Traffic.Tables[l.Relation.Key()]
	switch {
	case !ok:
		return text
	case reads:
		return fmt.Sprintf("%s; now about %s reads and %s writes a second", text, rate(traffic.Reads), rate(traffic.Writes))
	}
	return fmt.Sprintf("%s; now about %s writes a second", text, rate(traffic.Writes))
}

// rate returns a number of things a second for people.
func rate(n float64) string {
	if n > 0 && n < 10 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

// effectLines returns a line for what is done to each relation.
func effectLines(r *trace.Report, s trace.Statement) []string {
	var lines []string
	locked := false
	for _, e := range s.Effects {
		if e.Relation.Table != "" && !e.Drop {
			continue
		}
		if e.Relation.Table != "" && (tableIn(s.Effects, e.Relation.Table) || s.Outside) {
			continue // goes with its table, or is replaced
		}
		locked = true
		lines = append(lines, termtext.Line(e.Relation.SQL)+": "+strings.Join(effectWords(e), ", ")+sizeOf(r, e))
	}
	strong := slices.ContainsFunc(s.Locks, func(l trace.Lock) bool { return l.StopsWrites() && l.Relation.Kind == "table" })
	if strong && !locked {
		lines = append(lines, "quick once it has the lock: no rewrite, no scan")
	}
	return lines
}

// tableIn reports whether a table is removed, too.
func tableIn(effects []trace.Effect, table string) bool {
	return slices.ContainsFunc(effects, func(e trace.Effect) bool { return e.Drop && e.Relation.SQL == table })
}

// effectWords returns what was measured, in words.
func effectWords(e trace.Effect) []string {
	var parts []string
	if e.Drop {
		parts = append(parts, "dropped")
	}
	if e.Empty {
		parts = append(parts, "emptied")
	}
	if e.Rewrite {
		parts = append(parts, "rewrite: all of it is written anew")
	}
	switch {
	case e.Planned:
		parts = append(parts, "scan, in the plan for an empty table")
	case e.Validate:
		parts = append(parts, "scan, to validate")
	case e.Scan && !e.Rewrite && e.Scans == 1:
		parts = append(parts, "scan: it is read once")
	case e.Scan && !e.Rewrite:
		parts = append(parts, fmt.Sprintf("scan: it is read %d times", e.Scans))
	}
	if e.Indexes > 0 {
		parts = append(parts, Plural(e.Indexes, "index built", "indexes built"))
	}
	return parts
}

// sizeOf returns the size of a relation, if it is known and matters.
func sizeOf(r *trace.Report, e trace.Effect) string {
	if r.Traffic == nil || !e.Rewrite && !e.Scan {
		return ""
	}
	traffic, ok := r.Traffic.Tables[e.Relation.Key()]
	if !ok {
		return ""
	}
	text := "; " + Bytes(traffic.Bytes)
	if e.Rewrite && traffic.IndexBytes > 0 {
		text += " and " + Bytes(traffic.IndexBytes) + " of indexes"
	}
	if traffic.Rows >= 0 {
		text += fmt.Sprintf(", about %d rows", traffic.Rows)
	}
	return text
}

// Bytes formats a number of bytes for people.
func Bytes(n int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if value < 10 {
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.0f %s", value, units[unit])
}

// maxBlockers is how many blockers of a statement are listed for people.
const maxBlockers = 5

// blockerLines returns a line for each session that would keep the statement waiting.
func blockerLines(r *trace.Report, s trace.Statement) []string {
	if r.Traffic == nil {
		return nil
	}
	blockers := r.Traffic.Blockers[s.Number]
	var lines []string
	for i, b := range blockers {
		if i == maxBlockers {
			lines = append(lines, fmt.Sprintf("and for %d more", len(blockers)-i))
			break
		}
		text := "would wait now for " + blockerName(b.Session)
		if b.Session.State != "" {
			text += ", " + termtext.Line(b.Session.State)
		}
		if b.Session.XactDuration > 0 {
			text += ", in a transaction for " + Duration(b.Session.XactDuration)
		}
		if b.Mode != 0 {
			text += ", which holds " + b.Mode.PgLocks() + " on " + termtext.Line(b.Relation.SQL)
		}
		lines = append(lines, text)
	}
	return lines
}

// blockerName names a session, or a prepared transaction.
func blockerName(s *inspect.Session) string {
	if s.Prepared != nil {
		return "prepared transaction " + Quote(s.Prepared.GID)
	}
	return termtext.Session(s.PID, s.Application, s.User)
}

// total returns a line about all statements.
func (t Trace) total(r *trace.Report) string {
	var reads, writes int
	for _, s := range r.Statements {
		switch {
		case slices.ContainsFunc(s.Strongest(), trace.Lock.StopsReads):
			reads++
		case slices.ContainsFunc(s.Strongest(), trace.Lock.StopsWrites):
			writes++
		}
	}
	var parts []string
	if reads > 0 {
		parts = append(parts, Plural(reads, "statement stops", "statements stop")+" reads and writes")
	}
	if writes > 0 {
		parts = append(parts, Plural(writes, "statement stops", "statements stop")+" writes")
	}
	if len(parts) == 0 {
		parts = append(parts, "no statement stops reads or writes")
	}
	if r.Err() != nil {
		return strings.Join(append(parts, "one statement failed"), ", ")
	}
	return strings.Join(append(parts, Plural(r.Findings(), "finding", "findings")), ", ")
}

// WriteJSON writes a JSON object for each statement, in the format of docs/trace.md.
func (t Trace) WriteJSON(out io.Writer, reports []*trace.Report) error {
	var objects []Object
	for _, r := range reports {
		for _, s := range r.Statements {
			objects = append(objects, statementObject(r, s))
		}
	}
	return WriteObjects(out, objects)
}

func statementObject(r *trace.Report, s trace.Statement) Object {
	var o Object
	o.Add("file", s.Piece.File)
	o.Add("line", s.Piece.Line)
	o.Add("number", s.Number)
	o.Add("statement", s.Piece.SQL)
	o.Add("postgres", r.Major)
	o.Add("transaction", zeroNull(s.Transaction))
	o.Add("outside", s.Outside)
	o.Add("waits_for_transactions", s.WaitsForTransactions)
	o.Add("lock_timeout", s.LockTimeout)
	o.Add("locks", lockObjects(s.Locks))
	o.Add("held", lockObjects(s.Held))
	effects := []Object{}
	for _, e := range s.Effects {
		effects = append(effects, effectObject(r, e))
	}
	o.Add("effects", effects)
	findings := []Object{}
	for _, f := range s.Findings {
		var of Object
		of.Add("rule", f.Rule)
		of.Add("text", f.Text)
		of.Add("safer", append([]string{}, f.Safer...))
		of.Add("note", orNull(f.Note))
		of.Add("ignored", f.Ignored)
		findings = append(findings, of)
	}
	o.Add("findings", findings)
	blockers := []Object{}
	if r.Traffic != nil {
		for _, b := range r.Traffic.Blockers[s.Number] {
			blockers = append(blockers, blockerObject(b))
		}
	}
	o.Add("blockers", blockers)
	o.Add("skipped", orNull(s.Skipped))
	if s.Err != nil {
		o.Add("error", s.Err.Error())
	} else {
		o.Add("error", nil)
	}
	return o
}

func zeroNull(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

func addRelation(o *Object, r trace.Relation) {
	o.Add("schema", r.Schema)
	o.Add("relation", r.Name)
	o.Add("kind", r.Kind)
	o.Add("table", orNull(r.Table))
}

func lockObjects(locks []trace.Lock) []Object {
	objects := []Object{}
	for _, l := range locks {
		var o Object
		addRelation(&o, l.Relation)
		o.Add("mode", l.Mode.PgLocks())
		o.Add("stops_reads", l.StopsReads())
		o.Add("stops_writes", l.StopsWrites())
		o.Add("since", zeroNull(l.Since))
		objects = append(objects, o)
	}
	return objects
}

func effectObject(r *trace.Report, e trace.Effect) Object {
	var o Object
	addRelation(&o, e.Relation)
	o.Add("mode", orNull(e.Mode.PgLocks()))
	o.Add("rewrite", e.Rewrite)
	o.Add("scan", e.Scan)
	o.Add("validate", e.Validate)
	o.Add("scans", e.Scans)
	o.Add("planned", e.Planned)
	o.Add("empty", e.Empty)
	o.Add("drop", e.Drop)
	o.Add("indexes", e.Indexes)
	var rows, bytes, indexBytes, reads, writes any
	if r.Traffic != nil {
		if t, ok := r.Traffic.Tables[e.Relation.Key()]; ok {
			bytes, indexBytes, reads, writes = t.Bytes, t.IndexBytes, t.Reads, t.Writes
			if t.Rows >= 0 {
				rows = t.Rows
			}
		}
	}
	o.Add("rows", rows)
	o.Add("bytes", bytes)
	o.Add("index_bytes", indexBytes)
	o.Add("reads", reads)
	o.Add("writes", writes)
	return o
}

func blockerObject(b trace.Blocker) Object {
	var o Object
	o.Add("pid", zeroNull(int(b.Session.PID)))
	gid := ""
	if b.Session.Prepared != nil {
		gid = b.Session.Prepared.GID
	}
	o.Add("gid", orNull(gid))
	o.Add("user", orNull(b.Session.User))
	o.Add("application", orNull(b.Session.Application))
	o.Add("state", orNull(b.Session.State))
	o.Add("xact_duration", durationOrNull(b.Session.XactDuration))
	o.Add("relation", orNull(b.Relation.Name))
	o.Add("mode", orNull(b.Mode.PgLocks()))
	return o
}

func durationOrNull(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return d
}

// WriteMarkdown writes reports for a comment on a pull request.
func (t Trace) WriteMarkdown(out io.Writer, reports []*trace.Report) error {
	var b strings.Builder
	if len(reports) == 0 {
		b.WriteString("No migration changed.\n")
	}
	for i, r := range reports {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", markdown(t.title(r)), t.total(r)+".")
		for _, note := range r.Script.Notes {
			b.WriteString(markdown(note) + "\n\n")
		}
		b.WriteString("| | statement | locks | does |\n|---|---|---|---|\n")
		for _, s := range r.Statements {
			locks, effects := lockLines(r, s), append(effectLines(r, s), blockerLines(r, s)...)
			switch {
			case s.Err != nil:
				locks, effects = nil, []string{"failed: " + termtext.Line(s.Err.Error())}
			case s.Skipped != "":
				effects = append(effects, "not run: "+s.Skipped)
			case s.Control:
				locks, effects = nil, nil
			}
			fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", s.Number, codeSpan(termtext.Cut(strings.Join(strings.Fields(s.Piece.SQL), " "), maxStatement)), markdownLines(locks), markdownLines(effects))
		}
		for _, s := range r.Statements {
			for _, f := range s.Findings {
				if f.Ignored {
					continue
				}
				fmt.Fprintf(&b, "\n**%d. %s**: %s.", s.Number, f.Rule, markdown(f.Text))
				if f.Note != "" {
					b.WriteString(" " + markdown(strings.ToUpper(f.Note[:1])+f.Note[1:]) + ".")
				}
				b.WriteString("\n")
				if len(f.Safer) > 0 {
					fence := "```"
					for strings.Contains(strings.Join(f.Safer, "\n"), fence) {
						fence += "`"
					}
					b.WriteString("\n" + fence + "sql\n")
					for _, sql := range f.Safer {
						b.WriteString(termtext.Lines(sql) + "\n")
					}
					b.WriteString(fence + "\n")
				}
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// maxStatement is how much of a statement a table shows.
const maxStatement = 100

// markdown escapes text for Markdown, where names could otherwise be markup.
func markdown(text string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "|", `\|`, "<", "&lt;", "[", `\[`, "@", "&#64;", "#", `\#`).Replace(termtext.Line(text))
}

func markdownLines(lines []string) string {
	var escaped []string
	for _, l := range lines {
		escaped = append(escaped, markdown(l))
	}
	return strings.Join(escaped, "<br>")
}

// codeSpan returns text as code in a table.
func codeSpan(text string) string {
	text = strings.ReplaceAll(termtext.Line(text), "|", `\|`)
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		return fence + " " + text + " " + fence
	}
	return fence + text + fence
}
