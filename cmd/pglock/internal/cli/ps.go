package cli

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const psHelp = `Lists the sessions of the whole server, whether they hold a lock or not. The longest
transaction comes first. Sessions without a transaction come last.

Without PIDs, filters or tables, processes without a database are left out, such as
the checkpointer. pglock's own session is always left out. Prepared transactions have
no session: pglock ls lists their locks.

The output is as for pglock ls, also of several databases. A filter is one argument, FIELD OP VALUE. FIELD is an
attribute of a session or context.KEY.

xmin_age is how many transaction IDs were assigned since the oldest one that the
session needs. The session with the largest one holds VACUUM back the most.`

const psExamples = `  pglock ps
  pglock ps --on public.orders
  pglock ps -f 'state = idle in transaction' -f 'duration > 5min'
  pglock ps -f 'xmin_age > 100000' -a pid,xmin_age,xact_duration,state,query
  pglock ps -e 4711
  pglock ps -o json -f 'application ~ ^web' | jq '.[].pid'`

// A psRequest holds the arguments of pglock ps.
type psRequest struct{ listRequest }

func (a *app) psCommand() *cobra.Command {
	var r psRequest
	r.sessions = true
	return a.listCommand(&r.listRequest, r.draw, &cobra.Command{
		Use:     "ps [FLAG...] [PID...]",
		Short:   "List sessions, also those without locks",
		Long:    psHelp,
		Example: psExamples,
	}, "")
}

// draw writes the selected sessions, and returns notices for stderr.
func (r *psRequest) draw(ctx context.Context, f *fleet, out *bytes.Buffer) ([]string, error) {
	return drawList(ctx, &r.listRequest, f, out, list[inspect.Session]{
		what: "sessions",
		read: r.read,
		owns: func(s *session, shown *inspect.Session) bool { return s.owns(0, shown.Database) },
		compare: func(a, b *inspect.Session) int {
			return cmp.Or(cmp.Compare(b.XactDuration, a.XactDuration), cmp.Compare(b.Duration, a.Duration))
		},
		add: (*render.Table).AddSession,
		of:  func(s *inspect.Session) []*inspect.Session { return []*inspect.Session{s} },
	})
}

// read reads the selected sessions of a database's server, of which at most n are shown.
func (r *psRequest) read(ctx context.Context, session *session, n int) (rows[inspect.Session], error) {
	sessions, err := inspect.Sessions(ctx, session.guarded, r.where...)
	if err == nil && len(r.where) == 0 {
		sessions = slices.DeleteFunc(sessions, func(s inspect.Session) bool { return s.Database == "" })
	}
	shown := sessions[:min(n, len(sessions))]
	return rows[inspect.Session]{rows: pointers(shown), more: len(sessions) - len(shown)}, err
}
