package pglock

import (
	"context"
	"strings"
	"testing"
)

func TestStableName(t *testing.T) {
	for _, test := range []struct{ name, main, want string }{
		{"example.com/shop/jobs.Rebuild", "", "example.com/shop/jobs.Rebuild"},
		{"example.com/shop/jobs.(*Worker).Run-fm", "", "example.com/shop/jobs.(*Worker).Run"},
		{"example.com/shop/jobs.Worker.Run", "", "example.com/shop/jobs.Worker.Run"},
		{"gopkg.in/yaml.v3.Marshal", "", "gopkg.in/yaml.v3.Marshal"},
		{"example.com/shop/v2.Functional", "", "example.com/shop/v2.Functional"},
		{"main.rebuild", "example.com/shop/cmd/worker", "example.com/shop/cmd/worker.rebuild"},
		{"main.rebuild", "", ""},
		{"example.com/shop/jobs.Rebuild.func1", "", ""},
		{"example.com/shop/jobs.(*Worker).Run.func2.1", "", ""},
		{"example.com/shop/jobs.init.func1", "", ""},
		{"example.com/shop/jobs.glob..func1", "", ""},
		{"example.com/shop/jobs.Rebuild-range1", "", ""},
		{"example.com/shop/jobs.Rebuild.gowrap1", "", ""},
		{"example.com/shop/jobs.Map[...]", "", ""},
	} {
		got, err := stableName(test.name, test.main)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), test.name) {
			t.Errorf("%s: the error does not name the function: %v", test.name, err)
		}
	}
}

func job(context.Context) error { return nil }

func generic[T any](context.Context) error { return nil }

type worker struct{}

func (worker) run(context.Context) error   { return nil }
func (*worker) walk(context.Context) error { return nil }

func TestFuncName(t *testing.T) {
	var w worker
	closure := func(context.Context) error { return nil }
	const pkg = "github.com/pglock-go/pglock."
	for _, test := range []struct {
		fn   any
		want string
	}{
		{job, pkg + "job"},
		{w.run, pkg + "worker.run"},
		{(&w).walk, pkg + "(*worker).walk"},
		{closure, ""},
		{generic[int], ""},
		{(func(context.Context) error)(nil), ""},
		{nil, ""},
		{7, ""},
	} {
		got, err := funcName(test.fn)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("got %q, %v, want %q", got, err, test.want)
		}
	}
}
