package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// A selection is which locks or sessions a verb selects and how it shows them. ls, ps,
// tree, cancel and terminate share it.
type selection struct {
	sessions bool // sessions are selected, not locks

	filters    filterFlag
	tables     listFlag
	blocking   bool
	attributes attributeFlag
	limit      limitFlag
	expanded   bool

	view string // its name
	pids []int32

	// The result of resolve, from the flags, the view and the defaults.
	where           []inspect.Filter // the filters, PIDs and tables; empty if nothing selects locks
	explicitColumns bool             // the attributes are from the flags or the view
	yes             bool             // the view's
	output          string
	origins         map[string]string // where each setting is from, by its name in the config file
	lockNames       iter.Seq[string]  // those in the config file
}

const defaultLimit = 25

// register adds the flags that select locks or sessions. blocking is the usage of
// --blocking, which verbs for sessions do not have.
func (s *selection) register(flags *pflag.FlagSet, blocking string) {
	flags.VarP(&s.filters, "filter", "f", "only what matches `\"FIELD OP VALUE\"`; repeat to require all")
	if s.sessions {
		flags.Var(&s.tables, "on", "only sessions that hold or await a lock on this `table`; repeat for more tables")
	} else {
		flags.Var(&s.tables, "on", "only locks on this `table`; repeat for more tables")
		flags.BoolVar(&s.blocking, "blocking", false, blocking)
	}
	flags.StringVarP(&s.view, "config", "c", "", "also apply this `VIEW` of the config file")
}

// registerList adds the flags of lists.
func (s *selection) registerList(flags *pflag.FlagSet) {
	s.limit = defaultLimit
	flags.VarP(&s.attributes, "attribute", "a", "show this `attribute`; repeat or separate with commas")
	flags.VarP(&s.limit, "limit", "l", "show at most `N`, most urgent first; 0 for all")
	flags.BoolVarP(&s.expanded, "expanded", "e", false, "show each attribute on its own line")
}

// resolve parses the arguments, adds the settings of the config file, and checks the
// selection.
func (s *selection) resolve(a *app, cmd *cobra.Command, args []string) error {
	for _, arg := range args {
		for _, word := range strings.FieldsFunc(arg, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
			pid, err := strconv.ParseInt(word, 10, 32)
			if err != nil || pid < 1 {
				return usagef(cmd, "%s is not a PID", render.Quote(word))
			}
			if !slices.Contains(s.pids, int32(pid)) {
				s.pids = append(s.pids, int32(pid))
			}
		}
	}
	s.merge(a, cmd)
	s.lockNames = a.config.file.LockNames()
	s.where = slices.Clone(s.filters)
	if len(s.pids) > 0 {
		s.where = append(s.where, inspect.PIDs(s.pids...))
	}
	if len(s.tables) > 0 {
		s.where = append(s.where, inspect.On(s.tables...))
	}
	switch {
	case s.sessions && s.blocking:
		return usagef(cmd, "--config %s: this view is about pairs, and %s lists sessions", render.Quote(s.view), cmd.Name())
	case s.sessions:
		return s.checkSessionAttributes(cmd)
	case s.blocking:
		return nil
	}
	for _, f := range s.filters {
		if config.OfPairs(f) {
			return usagef(cmd, "--filter %s: this field needs --blocking", render.Quote(f.String()))
		}
	}
	for _, name := range s.attributes {
		if _, ok := render.FindAttribute(inspect.Attributes(), name); !ok {
			return usagef(cmd, "--attribute %s: this attribute needs --blocking", render.Quote(name))
		}
	}
	return nil
}

// checkSessionAttributes returns an error for an attribute that sessions do not have.
func (s *selection) checkSessionAttributes(cmd *cobra.Command) error {
	for _, name := range s.attributes {
		if _, ok := render.FindAttribute(inspect.SessionAttributes(), name); ok {
			continue
		}
		if origin := s.origins["attributes"]; origin != "--attribute" {
			return usagef(cmd, "%s: a session has no attribute %s: give the view session_attributes", origin, name)
		}
		return usagef(cmd, "--attribute %s: a session has no such attribute", render.Quote(name))
	}
	return nil
}

// merge adds the settings of the view, and then the defaults of the config file. A
// view's filters and tables are added to those of the flags. Every other setting applies
// only if no flag sets it.
func (s *selection) merge(a *app, cmd *cobra.Command) {
	isSet := func(flag string) bool { return cmd.Flags().Changed(flag) }
	s.origins = map[string]string{}
	for key, flag := range map[string]string{
		"filters": "filter", "tables": "on", "blocking": "blocking", "attributes": "attribute",
		"limit": "limit", "expanded": "expanded", "output": "output", "yes": "yes",
	} {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
			s.origins[key] = "--" + flag
		}
	}
	setOrigin := func(key string, v config.View) {
		s.origins[key] = a.config.where(v, key)
	}
	if a.config.view != nil {
		v := *a.config.view
		s.filters = append(s.filters, v.Filters()...)
		for _, key := range []string{"filters", "tables"} {
			switch from := s.origins[key]; {
			case v.LineOf(key) == 0:
			case from != "":
				s.origins[key] = from + ", " + a.config.where(v, key)
			default:
				setOrigin(key, v)
			}
		}
		if v.Blocking != nil && !isSet("blocking") {
			s.blocking = *v.Blocking
			setOrigin("blocking", v)
		}
		if v.Yes != nil && !isSet("yes") {
			s.yes = *v.Yes
			setOrigin("yes", v)
		}
	}
	s.explicitColumns = isSet("attribute")
	for i, v := range a.config.layers() {
		names, key := v.Attributes, "attributes"
		if s.blocking && len(v.BlockingAttributes) > 0 {
			names, key = v.BlockingAttributes, "blocking_attributes"
		}
		if s.sessions && len(v.SessionAttributes) > 0 {
			names, key = v.SessionAttributes, "session_attributes"
		}
		isDefault := i == len(a.config.layers())-1
		if (s.blocking || s.sessions) && isDefault && key == "attributes" {
			names = nil // they are for locks
		}
		if len(s.attributes) == 0 && len(names) > 0 && !(isDefault && cmd.Name() == "tree") {
			s.attributes, s.explicitColumns = names, !isDefault
			s.origins["attributes"] = a.config.where(v, key)
		}
		if v.Limit != nil && s.origins["limit"] == "" {
			s.limit = limitFlag(*v.Limit)
			setOrigin("limit", v)
		}
		if v.Expanded != nil && s.origins["expanded"] == "" {
			s.expanded = *v.Expanded
			setOrigin("expanded", v)
		}
		if v.Output != "" && s.origins["output"] == "" {
			s.output = v.Output
			setOrigin("output", v)
		}
	}
}

// outputOr returns the output format of the flag, or else of the config file.
func (s *selection) outputOr(flag outputFlag) string {
	if s.origins["output"] == "--output" || s.output == "" || !slices.Contains(flag.choices, s.output) {
		return flag.value
	}
	return s.output
}

// unmatched returns a line for each filter that matches nothing even without the others.
// Its value may be misspelled, which an empty result alone would not show.
func (s *selection) unmatched(ctx context.Context, session *session) ([]string, error) {
	var lines []string
	what := "lock"
	switch {
	case s.blocking:
		what = "blocked session"
	case s.sessions:
		what = "session"
	}
	for _, f := range s.filters {
		n, err := s.count(ctx, session, f)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			line := fmt.Sprintf("no %s on the server matches %s", what, render.Quote(f.String()))
			if text := f.String(); strings.HasPrefix(text, "relation ") && strings.Contains(text, ".") {
				line += ": write the relation without its schema, or use --on"
			}
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// count returns how many rows match a filter alone.
func (s *selection) count(ctx context.Context, session *session, f inspect.Filter) (int, error) {
	switch {
	case s.blocking:
		pairs, err := inspect.Blocked(ctx, session.guarded, f)
		return len(pairs), err
	case s.sessions:
		sessions, err := inspect.Sessions(ctx, session.guarded, f)
		return len(sessions), err
	}
	locks, err := inspect.Locks(ctx, session.guarded, f)
	return len(locks), err
}

// isAboutTransactionIDs reports whether a filter is about the type of locks or about
// transaction IDs.
func isAboutTransactionIDs(f inspect.Filter) bool {
	return slices.Contains([]string{"type", "transactionid", "virtualxid"}, config.Field(f))
}

// availableAttributes returns the attributes of locks, of pairs with --blocking, or of
// sessions.
func (s *selection) availableAttributes() []inspect.Attribute {
	switch {
	case s.blocking:
		return inspect.PairAttributes()
	case s.sessions:
		return inspect.SessionAttributes()
	}
	return inspect.Attributes()
}

// listColumns returns the attributes that a list shows to people.
func (s *selection) listColumns() []inspect.Attribute {
	switch {
	case s.blocking:
		return s.columns("pid", "blocking_pid", "context", "blocking_context", "query", "blocking_query")
	case s.sessions:
		return s.columns("pid", "state", "duration", "xact_duration", "context", "query")
	}
	return s.columns("pid", "duration", "granted", "mode", "kind", "relation", "context", "query")
}

// columns returns the attributes to show: the selected ones, or else the defaults.
func (s *selection) columns(defaults ...string) []inspect.Attribute {
	names := defaults
	if len(s.attributes) > 0 {
		names = s.attributes
	}
	var columns []inspect.Attribute
	for _, name := range names {
		if a, ok := render.FindAttribute(s.availableAttributes(), name); ok {
			columns = append(columns, a)
		}
	}
	return columns
}

// attributeFlag is -a.
type attributeFlag []string

func (f *attributeFlag) Type() string   { return "attribute" }
func (f *attributeFlag) String() string { return strings.Join(*f, ",") }

func (f *attributeFlag) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if _, ok := render.FindAttribute(inspect.PairAttributes(), name); !ok {
			var names []string
			for _, a := range inspect.Attributes() {
				names = append(names, a.Name)
			}
			return fmt.Errorf("unknown attribute %s; the attributes are %s; with --blocking also block, and blocking_ before those of a session",
				render.Quote(name), strings.Join(names, ", "))
		}
		*f = append(*f, name)
	}
	return nil
}

// limitFlag is -l.
type limitFlag int

func (f *limitFlag) Type() string   { return "N" }
func (f *limitFlag) String() string { return strconv.Itoa(int(*f)) }

func (f *limitFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return errors.New("must be a number, 0 for all")
	}
	*f = limitFlag(n)
	return nil
}
