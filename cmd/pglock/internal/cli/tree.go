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

-d NAME,NAME and --all show several databases, those of one server together.

-o json prints an array of the roots, each with the sessions that it blocks in
"blocked".`

const treeExamples = `  pglock tree
  pglock tree --on orders
  pglock tree --watch
  pglock tree -d shop,billing
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
	severalFlag(cmd)
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	cmd.Flags().BoolVar(&ascii, "ascii", false, "draw with ASCII characters")
	watch.register(cmd.Flags())
	return cmd
}

// draw writes the selected trees, and returns notices for stderr. Trees of several
// servers are below the names of their databases.
func (r *treeRequest) draw(ctx context.Context, f *fleet, out *bytes.Buffer) ([]string, error) {
	parts, err := readAll(ctx, f, r.read)
	if err != nil {
		return nil, err
	}
	var groves []*render.Grove
	var selected []int32
	ofServer := map[string]*render.Grove{}
	hidden := hiddenSessions{}
	for _, p := range parts {
		g := ofServer[p.serverID()]
		if g == nil {
			g = &render.Grove{Title: p.peerNames()}
			ofServer[p.serverID()] = g
			groves = append(groves, g)
		}
		selected = append(selected, p.value.pids...)
		for _, t := range p.value.trees {
			if p.owns(0, t.Database) {
				g.Add(p.name, t)
				hidden.noteTree(p.session, t)
			}
		}
	}
	notices := append(f.notes, hidden.notices(f.sessions())...)
	if r.json {
		return notices, render.WriteForestJSON(out, groves)
	}
	style := r.style
	style.Shown = r.unfolded(selected)
	return notices, style.Write(out, groves)
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

// selectedTrees are trees, and the sessions that the filters and tables select.
type selectedTrees struct {
	trees []*inspect.Tree
	pids  []int32
}

// read reads the selected trees. For people, it adds the known names of advisory locks.
func (r *treeRequest) read(ctx context.Context, session *session) (selectedTrees, error) {
	snapshot, err := inspect.ReadSnapshot(ctx, session.guarded)
	if err != nil {
		return selectedTrees{}, err
	}
	if !r.json {
		render.NameKeys(slices.Collect(eachLockOfPairs(snapshot.Pairs)), eachLock(snapshot.Locks), r.lockNames)
	}
	if len(r.where) == 0 {
		return selectedTrees{trees: snapshot.Forest()}, nil
	}
	var pids []int32
	if r.blocking {
		pairs, err := inspect.Blocked(ctx, session.guarded, r.where...)
		if err != nil {
			return selectedTrees{}, err
		}
		for _, p := range pairs {
			pids = append(pids, p.PID)
		}
	} else {
		locks, err := inspect.Locks(ctx, session.guarded, r.where...)
		if err != nil {
			return selectedTrees{}, err
		}
		for _, l := range locks {
			pids = append(pids, l.PID)
			if l.LeaderPID != 0 {
				pids = append(pids, l.LeaderPID)
			}
		}
	}
	if len(pids) == 0 {
		return selectedTrees{}, nil
	}
	return selectedTrees{snapshot.Forest(pids...), pids}, nil
}

// noteTree records that the sessions of a tree are shown.
func (h hiddenSessions) noteTree(from *session, t *inspect.Tree) {
	h.note(from, t.Session)
	for _, b := range t.Blocked {
		h.noteTree(from, b)
	}
}
