//go:build linux

package pgserver_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// Kill also ends what a program has started in its subfolder data, and keeps the folder.
// Restart starts the same again. Stop leaves nothing.
func TestKillAndRestartAProgram(t *testing.T) {
	t.Parallel()
	shell, err := pgserver.FindProgram(t.Context(), "sh", nil)
	if err != nil {
		t.Fatal(err)
	}
	const script = `cd "$0" && mkdir -p data && echo $TEST_WORD >>word && (cd data && exec setsid sleep 1000) & exec sleep 1000`
	process, err := shell.With("TEST_WORD=again").Start(t.Context(), func(folder string) (map[string]string, []string) {
		return nil, []string{"-c", script, folder}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer process.Stop()
	data := filepath.Join(process.Folder(), "data")
	inData := func() (n int) {
		links, _ := filepath.Glob("/proc/[0-9]*/cwd") // fails only on a bad pattern
		for _, link := range links {
			if dir, err := os.Readlink(link); err == nil && dir == data {
				n++
			}
		}
		return n
	}
	for range 2 {
		await(t, "the program and its child", func() bool { return inData() == 1 && process.Running() })
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
		if process.Running() || inData() > 0 {
			t.Error("the program or its child still runs")
		}
		if err := process.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the third start", func() bool {
		text, err := os.ReadFile(filepath.Join(process.Folder(), "word"))
		return err == nil && string(text) == "again\nagain\nagain\n" && inData() == 1
	})
	if err := process.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(process.Folder()); !os.IsNotExist(err) || inData() > 0 {
		t.Errorf("left behind: %v, %d processes", err, inData())
	}
}
