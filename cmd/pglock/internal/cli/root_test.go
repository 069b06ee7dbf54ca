package cli

import (
	"io"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The command that has only one verb has the same verb as the one that has all.
func TestOneVerb(t *testing.T) {
	all := new(app).rootCommand(nil)
	names := func(cmds []*cobra.Command) (names []string) {
		for _, cmd := range cmds {
			names = append(names, cmd.Name())
		}
		return names
	}
	for _, v := range new(app).verbs() {
		args := []string{v.name, "--help"}
		root := new(app).rootCommand(args)
		if want := []string{v.name}; v.name != "completion" && !slices.Equal(names(root.Commands()), want) {
			t.Errorf("%s: the command has the verbs %v", v.name, names(root.Commands()))
		}
		one, _, err := root.Find(args)
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := all.Find(args)
		if err != nil {
			t.Fatal(err)
		}
		if one.Name() != v.name || one.Long != other.Long || usageOf(one) != usageOf(other) {
			t.Errorf("%s: the help is not that of the command with all verbs:\n%s", v.name, usageOf(one))
		}
		count := func(flags *pflag.FlagSet) (n int) {
			flags.VisitAll(func(*pflag.Flag) { n++ })
			return n
		}
		if count(one.Flags()) != count(other.Flags()) {
			t.Errorf("%s: %d flags, not %d", v.name, count(one.Flags()), count(other.Flags()))
		}
	}
	for _, args := range [][]string{nil, {"help"}, {"completion"}, {"-h", "ls"}, {"lss"}, {"__complete", "ls"}} {
		if root := new(app).rootCommand(args); len(root.Commands()) < len(new(app).verbs()) {
			t.Errorf("%q: the command has only %v", args, names(root.Commands()))
		}
	}
}

// BenchmarkStart measures what making the command and finding the verb takes, of each call.
func BenchmarkStart(b *testing.B) {
	for _, verb := range []string{"version", "ls", "help"} {
		b.Run(verb, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Run(b.Context(), []string{verb, "--help"}, Streams{Out: io.Discard, Err: io.Discard}, nil)
			}
		})
	}
}
