package cli

import (
	"bytes"
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const treeHelp = `Draws who waits for whom. Each root is a session or a prepared transaction that
blocks others and does not wait. Below each session are those that wait for it. The
root with the most sessions behind it comes first: ending it frees the most.

PIDs, filters and tables select the trees in which a session holds or waits for a
matching lock. A tree is shown whole, except that the middle of a long chain of sessions,
each with one waiter, is folded to a line. Sessions that were asked for are not folded.

-o json prints an array of the roots, each with the sessions that it blocks in
"blocked".`

const treeExamples = `  pglock tree
  pglock tree --on orders
  pglock tree --watch
  pglock tree -f 'wait_duration > 1min' -o json | jq '.[].pid'`

// A treeRequest holds the arguments of pglock tree.
type treeRequest struct {
	selection
	json  bool
	style render.Forest
}

func (a *app) treeCommand() *cobra.Command {
	var r treeRequest
	var ascii bool
	var watch watchFlag
	output := outputFlag{choices: []string{"tree", "json"}, value: "tree"}
	cmd := &cobra.Command{
		Use:                   "tree [FLAG...] [PID...]",
		Short:                 "Draw who waits for whom",
		Long:                  treeHelp,
		Example:               treeExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = watch.fromArgs(args)
			if err := r.resolve(a, cmd, args); err != nil {
				return err
			}
			r.json = r.outputOr(output) == "json"
			r.style = render.Forest{
				Width: a.width(),
				Color: a.useColor(),
				ASCII: ascii || !a.useUnicode(),
				Extra: r.columns(),
			}
			return a.show(cmd.Context(), "tree", watch, r.draw)
		},
	}
	cmd.Flags().SortFlags = false
	r.register(cmd.Flags(), "filter pairs of a waiting session and one that blocks it")
	cmd.Flags().VarP(&r.attributes, "attribute", "a", "also show this `attribute` of each session; repeat or separate with commas")
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	cmd.Flags().BoolVar(&ascii, "ascii", false, "draw with ASCII characters")
	watch.register(cmd.Flags())
	return cmd
}

// draw writes the selected trees, and returns notices for stderr.
func (r *treeRequest) draw(ctx context.Context, session *session, out *bytes.Buffer) ([]string, error) {
	trees, err := r.read(ctx, session)
	if err != nil {
		return nil, err
	}
	notices := hiddenInTrees(session, trees)
	if r.json {
		return notices, render.WriteForestJSON(out, trees)
	}
	return notices, r.style.Write(out, trees)
}

// maxMatches is how many sessions that filters and tables select are never folded.
const maxMatches = 10

// unfolded returns the PIDs of the sessions that are never folded: those of the arguments,
// and what the conditions select if that is only a few.
func (r *treeRequest) unfolded(selected []int32) map[int32]bool {
	shown := map[int32]bool{}
	for _, pid := range selected {
		shown[pid] = true
	}
	if len(shown) > maxMatches {
		clear(shown)
	}
	for _, pid := range r.pids {
		shown[pid] = true
	}
	return shown
}

// read reads the selected trees. For people, it adds the known names of advisory locks.
func (r *treeRequest) read(ctx context.Context, session *session) ([]*inspect.Tree, error) {
	snapshot, err := inspect.ReadSnapshot(ctx, session.guarded)
	if err != nil {
		return nil, err
	}
	if !r.json {
		render.NameKeys(slices.Collect(eachLockOfPairs(snapshot.Pairs)), eachLock(snapshot.Locks))
	}
	if len(r.where) == 0 {
		return snapshot.Forest(), nil
	}
	var pids []int32
	if r.blocking {
		pairs, err := inspect.Blocked(ctx, session.guarded, r.where...)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			pids = append(pids, p.PID)
		}
	} else {
		locks, err := inspect.Locks(ctx, session.guarded, r.where...)
		if err != nil {
			return nil, err
		}
		for _, l := range locks {
			pids = append(pids, l.PID)
			if l.LeaderPID != 0 {
				pids = append(pids, l.LeaderPID)
			}
		}
	}
	if len(pids) == 0 {
		return nil, nil
	}
	r.style.Shown = r.unfolded(pids)
	return snapshot.Forest(pids...), nil
}

// hiddenInTrees returns a notice if the activity of sessions in the trees is hidden.
func hiddenInTrees(s *session, trees []*inspect.Tree) []string {
	hidden := map[int32]bool{}
	var visit func(t *inspect.Tree)
	visit = func(t *inspect.Tree) {
		if t.Hidden {
			hidden[t.PID] = true
		}
		for _, b := range t.Blocked {
			visit(b)
		}
	}
	for _, t := range trees {
		visit(t)
	}
	return render.HiddenNotice(len(hidden), s.user)
}
