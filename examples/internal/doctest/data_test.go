//go:build unix

package doctest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// configFile writes the first config file of docs/config.md and returns its path, so that
// the guides' commands can use its names. Its databases are replaced by the test's.
func configFile(t *testing.T) string {
	t.Helper()
	blocks := readPage(t, "docs/config.md").blocks(t, "yaml")
	if len(blocks) == 0 {
		t.Fatal("docs/config.md has no config file")
	}
	var all map[string]any
	if err := yaml.Unmarshal([]byte(blocks[0].text), &all); err != nil {
		t.Fatal(err)
	}
	all["databases"] = map[string]string{"prod": "shop", "stage": "shop"}
	data, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pglock.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The command can read the config files, and their views run on a server.
func TestYAML(t *testing.T) {
	t.Parallel()
	scene := newStage(t).play(t, "none")
	for _, p := range guides(t) {
		for _, b := range p.blocks(t, "yaml") {
			if _, other := b.mark("manifest"); other {
				decoder := yaml.NewDecoder(strings.NewReader(b.text))
				for {
					var document map[string]any
					err := decoder.Decode(&document)
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Errorf("%s: %v", b, err)
						break
					}
				}
				continue
			}
			var file struct {
				Views map[string]any `yaml:"views"`
			}
			if err := yaml.Unmarshal([]byte(b.text), &file); err != nil {
				t.Errorf("%s: %v", b, err)
				continue
			}
			path := filepath.Join(scene.folder, "guide.yaml")
			if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Run(b.String(), func(t *testing.T) {
				scene.run(t, "pglock config --config-file guide.yaml", 0)
				for view := range file.Views {
					scene.run(t, "pglock ls --config-file guide.yaml -c "+view+" -d dbname=shop", 0)
				}
			})
		}
	}
}

func TestJSON(t *testing.T) {
	for _, p := range guides(t) {
		for _, b := range p.blocks(t, "json") {
			if !json.Valid(bytes.TrimSpace([]byte(b.text))) {
				t.Errorf("%s is not valid JSON", b)
			}
		}
	}
}

// INI has PgBouncer's syntax: sections, names, values.
func TestINI(t *testing.T) {
	for _, p := range guides(t) {
		for _, b := range p.blocks(t, "ini") {
			for line := range strings.Lines(b.text) {
				line = strings.TrimSpace(line)
				if line == "" || line[0] == ';' || line[0] == '[' && line[len(line)-1] == ']' {
					continue
				}
				if name, value, ok := strings.Cut(line, "="); !ok || strings.TrimSpace(name) == "" || strings.TrimSpace(value) == "" {
					t.Errorf("%s: %q is not a setting", b, line)
				}
			}
		}
	}
}

// SQL is run, each block in its own database.
func TestSQL(t *testing.T) {
	for _, p := range guides(t) {
		for _, b := range p.blocks(t, "sql") {
			t.Run(b.String(), func(t *testing.T) {
				conn := connect(t)
				// The parameters of a statement are left to the program that sends it.
				if strings.Contains(b.text, "$1") {
					if _, err := conn.Prepare(t.Context(), "block", b.text); err != nil {
						t.Error(err)
					}
					return
				}
				// Roles belong to the whole server, so they are rolled back.
				if _, err := conn.Exec(t.Context(), "BEGIN; CREATE ROLE app; CREATE ROLE oncall; CREATE ROLE migrator;"+b.text+"; ROLLBACK"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), schema+pglock.LeaseSQL("pglock")); err != nil {
		t.Fatal(err)
	}
	return conn
}
