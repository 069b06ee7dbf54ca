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

// Wrap returns a function that runs fn under a lock of its own, as [Locker.Do] does. The
// key is [Name] applied to fn's name, qualified by its package, such as
// "example.com/shop/jobs.Rebuild". The name is the same in every build and on every
// machine. A method is named after its type, "example.com/shop/jobs.(*Worker).Run",
// whatever value it is bound to; a method taken from an interface is named after the
// interface. In a main package, the package path replaces "main", so that two programs do
// not share a name by accident.
//
// Wrap returns an error if fn has no stable name: for closures and instances of generic
// functions, and for a main package whose path is unknown, as under "go run file.go". Use
// Do with a key of your choice then. Options are those of Do, and apply to every run.
func (l *Locker) Wrap(fn func(context.Context) error, opts ...DoOption) (func(context.Context) error, error) {
	name, err := funcName(fn)
	if err != nil {
		return nil, err
	}
	if _, err := newRequest("wrap "+name, opts); err != nil {
		return nil, err
	}
	key := Name(name)
	return func(ctx context.Context) error { return l.Do(ctx, key, fn, opts...) }, nil
}

// funcName returns the name of a function, qualified by its package. It returns an error
// if there is no stable name: for closures, which the compiler numbers in source order; for
// instances of generic functions, which all share one name; for a main package whose path
// is unknown; and if fn is nil or not a function.
func funcName(fn any) (string, error) {
	v := reflect.ValueOf(fn)
	if v.Kind() != reflect.Func || v.IsNil() {
		return "", fmt.Errorf("pglock: function name: %T is nil or not a function", fn)
	}
	name := runtime.FuncForPC(v.Pointer()).Name()
	return stableName(name, mainPath())
}

// mainPath returns the path of this program's main package, or "" if it has no stable
// one.
func mainPath() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Path == "command-line-arguments" {
		return ""
	}
	return info.Path
}

// numberedParts matches the parts of a name that the compiler numbers.
const numberedParts = `\.(func|gowrap|deferwrap)?\d+(\.|-|$)|-range\d|\.glob\.`

// stableName returns a stable name for a function named name by the runtime.
func stableName(name, mainPath string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("pglock: function %s %s: use Do with a key of your choice", name, why)
	}
	slash := strings.LastIndex(name, "/") + 1 // dots before it belong to the path
	if regexp.MustCompile(numberedParts).MatchString(name[slash:]) || strings.Contains(name[slash:], "..") {
		return refuse("is a closure, whose name changes with the source around it")
	}
	if strings.Contains(name, "[...]") {
		return refuse("is generic, and all its instances have this name")
	}
	name = strings.TrimSuffix(name, "-fm")
	if rest, ok := strings.CutPrefix(name, "main."); ok {
		if mainPath == "" {
			return refuse("is in a main package whose path is unknown")
		}
		name = mainPath + "." + rest
	}
	return name, nil
}
