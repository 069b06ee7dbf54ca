package pglock_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
)

// Each function accepts exactly the options that it supports: a wrong one does not
// compile. A result of a function can be passed as an argument if its type is assignable
// to the argument's.
func TestOptionsOfEachFunction(t *testing.T) {
	t.Parallel()
	options := map[string]any{
		"Shared": pglock.Shared, "Wait": pglock.Wait, "NoWait": pglock.NoWait, "SkipIfHeld": pglock.SkipIfHeld,
		"In": pglock.In, "Only": pglock.Only, "Sessions": pglock.Sessions,
	}
	lock := []string{"Shared", "Wait", "NoWait"}
	do := []string{"Shared", "Wait", "NoWait", "SkipIfHeld"}
	tables := []string{"Wait", "NoWait", "In", "Only"}
	for name, test := range map[string]struct {
		function any
		want     []string
	}{
		"Lock":       {(*pglock.Locker).Lock, lock},
		"LockAll":    {(*pglock.Locker).LockAll, lock},
		"LockTx":     {pglock.LockTx, lock},
		"LockAllTx":  {pglock.LockAllTx, lock},
		"TryLock":    {(*pglock.Locker).TryLock, []string{"Shared"}},
		"TryLockTx":  {pglock.TryLockTx, []string{"Shared"}},
		"Do":         {(*pglock.Locker).Do, do},
		"DoAll":      {(*pglock.Locker).DoAll, do},
		"DoTx":       {pglock.DoTx[any], do},
		"LockTables": {pglock.LockTables, tables},
		"DoTables":   {pglock.DoTables[any], append(slices.Clone(tables), "SkipIfHeld")},
		"New":        {pglock.New, []string{"Sessions"}},
	} {
		f := reflect.TypeOf(test.function)
		accepted := f.In(f.NumIn() - 1).Elem()
		for option, make := range options {
			got := reflect.TypeOf(make).Out(0).AssignableTo(accepted)
			if want := slices.Contains(test.want, option); got != want {
				t.Errorf("%s accepts %s: %v, want %v", name, option, got, want)
			}
		}
		if accepted.Kind() != reflect.Interface || !sealed(accepted) {
			t.Errorf("other packages can make a %v", accepted)
		}
	}
}

// sealed reports whether only this module can implement an interface: because a method is
// not exported, or has a parameter of an internal type.
func sealed(t reflect.Type) bool {
	for i := range t.NumMethod() {
		m := t.Method(i)
		if !m.IsExported() || strings.Contains(m.Type.In(0).Elem().PkgPath(), "/internal/") {
			return true
		}
	}
	return false
}
