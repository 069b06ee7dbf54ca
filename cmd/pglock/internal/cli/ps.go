package cli

import (
	"bytes"
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/inspect"
)

const psHelp = `Lists the sessions of the whole server, whether they hold a lock or not. The longest
transaction comes first. Sessions without a transaction come last.

Without PIDs, filters or tables, processes without a database are left out, such as
the checkpointer. pglock's own session is always left out. Prepared transactions have
no session: pglock ls lists their locks.

The output is as for pglock ls. A filter is one argument, FIELD OP VALUE. FIELD is an
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
func (r *psRequest) draw(ctx context.Context, session *session, out *bytes.Buffer) ([]string, error) {
	sessions, err := inspect.Sessions(ctx, session.guarded, r.where...)
	if err != nil {
		return nil, err
	}
	if len(r.where) == 0 {
		sessions = slices.DeleteFunc(sessions, func(s inspect.Session) bool { return s.Database == "" })
	}
	l := r.newList("sessions")
	l.count = len(sessions)
	for i := range r.shown(l.count) {
		l.table.AddSession(&sessions[i])
		l.note(&sessions[i])
	}
	return r.write(ctx, session, out, l)
}
