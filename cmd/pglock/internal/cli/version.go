package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
)

func (a *app) versionCommand() *cobra.Command {
	output := outputFlag{value: "table", choices: []string{"table", "json"}}
	cmd := &cobra.Command{
		Use:         "version [-o json]",
		Short:       "Print the version",
		Long:        "Prints the version of pglock and what it was built from.",
		Annotations: map[string]string{offline: "true"},
		Args:        noArgs,
		RunE:        func(*cobra.Command, []string) error { return a.printVersion(output.value) },
	}
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	return cmd
}

// A build describes the executable.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from files that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildInfo returns what the go command recorded in the executable: the version if it
// was installed as a module, the commit and date if it was built in a checkout, and
// neither with -buildvcs=false.
func buildInfo(info *debug.BuildInfo, ok bool) build {
	b := build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	switch info.Main.Version {
	case "", "(devel)":
		b.Version = "devel"
	default:
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (a *app) printVersion(output string) error {
	b := buildInfo(debug.ReadBuildInfo())
	if output == "json" {
		return render.WriteJSON(a.Out, b)
	}
	fmt.Fprintf(a.Out, "pglock %s\n", b.Version)
	if b.Commit != "" {
		modified := ""
		if b.Modified {
			modified = ", modified"
		}
		fmt.Fprintf(a.Out, "commit %s, %s%s\n", b.Commit, b.Date, modified)
	}
	_, err := fmt.Fprintf(a.Out, "%s %s\n", b.Go, b.Platform)
	return err
}
