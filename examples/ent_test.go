package examples_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// TestEnt generates ent's code for the program in testdata/ent, and runs the program's
// tests. The code is generated in a temporary copy, and an overlay shows it to
// the go command as if it were in testdata/ent.
func TestEnt(t *testing.T) {
	t.Parallel()
	const program, generated = "./testdata/ent", "testdata/ent/ent"
	overlay := writeOverlay(t, generate(t, generated), generated)
	args := []string{"test", overlay, "-count=1", "-v", "-vet=off", "-timeout=10m"}
	if underRace() {
		args = append(args, "-race")
	}
	out := output(t, exec.Command("go", append(args, program)...))
	for _, name := range []string{"TestProgram", "TestTx"} {
		if !strings.Contains(out, "\n--- PASS: "+name+" ") {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
}

// generate runs go generate in a copy of this module that has only the directory dir. It
// returns the copy of dir.
func generate(t *testing.T, dir string) string {
	t.Helper()
	module := t.TempDir()
	for _, file := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(module, file), data, 0o600))
	}
	must(t, os.CopyFS(filepath.Join(module, dir), os.DirFS(dir)))
	cmd := exec.Command("go", "generate", "./"+dir)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	output(t, cmd)
	return filepath.Join(module, dir)
}

// writeOverlay writes a file that shows the files of the directory from in the directory
// to. It returns the flag for the go command.
func writeOverlay(t *testing.T, from, to string) string {
	t.Helper()
	to, err := filepath.Abs(to)
	must(t, err)
	replace := make(map[string]string)
	must(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(from, path)
		replace[filepath.Join(to, name)] = path
		return err
	}))
	data, err := json.Marshal(map[string]any{"Replace": replace})
	must(t, err)
	file := filepath.Join(t.TempDir(), "overlay.json")
	must(t, os.WriteFile(file, data, 0o600))
	return "-overlay=" + file
}

// output runs a command and returns what it prints. It fails the test if the command
// fails.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// underRace reports whether the race detector is on.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
