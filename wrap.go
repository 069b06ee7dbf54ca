package pglock

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
)

// Wrap gives fn its own lock: the function that it returns runs fn as
// [Locker.Do] does, under the name that [FuncName] has for fn. Its error says that
// fn has no such name; use Do with a key of your choice then. Options are those
// of Do, and hold for every run.
func (l *Locker) Wrap(fn func(context.Context) error, opts ...Option) (func(context.Context) error, error) {
	name, err := FuncName(fn)
	if err != nil {
		return nil, err
	}
	if _, err := newRequest("wrap "+name, canShare|canWait|canSkip, opts); err != nil {
		return nil, err
	}
	key := Name(name)
	return func(ctx context.Context) error { return l.Do(ctx, key, fn, opts...) }, nil
}

// FuncName is the name of a function, qualified by its package, which is the same
// in every build and on every machine: "example.com/shop/jobs.Rebuild". Of a
// method it is that of its type, "example.com/shop/jobs.(*Worker).Run", whatever
// the value that it is bound to; a method taken from an interface has the
// interface's name. In a main package the package's path stands in the place of
// "main", so that two programs do not meet by accident.
//
// What has no name that is sure to last is refused: closures, which are numbered
// in the order of the source; instances of generic functions, which all have one
// name; a main package whose path is not known, as under "go run file.go"; and
// what is no function, or nil.
func FuncName(fn any) (string, error) {
	v := reflect.ValueOf(fn)
	if v.Kind() != reflect.Func || v.IsNil() {
		return "", fmt.Errorf("pglock: the name of a function: %T is none, or nil", fn)
	}
	name := runtime.FuncForPC(v.Pointer()).Name()
	return stableName(name, mainPath())
}

// mainPath is the path of this program's main package, or "" when it has none
// that lasts.
func mainPath() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Path == "command-line-arguments" {
		return ""
	}
	return info.Path
}

// numbered matches the parts of a name that the compiler numbers.
const numbered = `\.(func|gowrap|deferwrap)?\d+(\.|-|$)|-range\d|\.glob\.`

// stableName makes what the runtime calls a function a name that lasts.
func stableName(name, mainPath string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("pglock: the function %s %s: use Do with a key of your choice", name, why)
	}
	slash := strings.LastIndex(name, "/") + 1 // dots before it belong to the path
	if regexp.MustCompile(numbered).MatchString(name[slash:]) || strings.Contains(name[slash:], "..") {
		return refuse("is a closure, whose name changes with the source around it")
	}
	if strings.Contains(name, "[...]") {
		return refuse("is generic, and all of its instances have this name")
	}
	name = strings.TrimSuffix(name, "-fm")
	if rest, ok := strings.CutPrefix(name, "main."); ok {
		if mainPath == "" {
			return refuse("is in a main package whose path is not known")
		}
		name = mainPath + "." + rest
	}
	return name, nil
}
