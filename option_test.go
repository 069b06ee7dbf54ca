package pglock_test

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
		"Slots": pglock.Slots, "Every": pglock.Every, "Note": pglock.Note, "Fenced": pglock.Fenced,
	}
	tx := []string{"Shared", "Wait", "NoWait"}
	lock := append(slices.Clone(tx), "Slots", "Note", "Fenced")
	do := append(slices.Clone(lock), "SkipIfHeld", "Every")
	tables := []string{"Wait", "NoWait", "In", "Only"}
	for name, test := range map[string]struct {
		function any
		want     []string
	}{
		"Lock":       {(*pglock.Locker).Lock, lock},
		"LockAll":    {(*pglock.Locker).LockAll, lock},
		"Lead":       {(*pglock.Locker).Lead, lock},
		"LockTx":     {pglock.LockTx, tx},
		"LockAllTx":  {pglock.LockAllTx, tx},
		"TryLock":    {(*pglock.Locker).TryLock, []string{"Shared"}},
		"TryLockTx":  {pglock.TryLockTx, []string{"Shared"}},
		"Do":         {(*pglock.Locker).Do, do},
		"DoAll":      {(*pglock.Locker).DoAll, do},
		"DoTx":       {pglock.DoTx[any], append(slices.Clone(tx), "SkipIfHeld")},
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

// Options that cannot be combined, or that do not fit the Locker or the call, are errors that
// name the option. They say so before anything is sent.
func TestOptionsThatAreErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	source := &downSource{down: 1000}
	advisory := newLocker(t, source)
	leases := newLocker(t, source, pglock.Leases(30*time.Second))
	key := pglock.Name("a")
	fn := func(context.Context) error { t.Error("it runs"); return nil }
	lock := func(l *pglock.Locker, opts ...pglock.LockOption) error {
		_, err := l.Lock(ctx, key, opts...)
		return err
	}
	lockAll := func(l *pglock.Locker, opts ...pglock.LockOption) error {
		_, err := l.LockAll(ctx, []pglock.Key{key}, opts...)
		return err
	}
	do := func(l *pglock.Locker, opts ...pglock.DoOption) error { return l.Do(ctx, key, fn, opts...) }
	doAll := func(l *pglock.Locker, opts ...pglock.DoOption) error {
		return l.DoAll(ctx, []pglock.Key{key}, fn, opts...)
	}
	for _, test := range []struct {
		err  error
		says []string
	}{
		{lock(advisory, pglock.Note("a")), []string{"Note()", "Leases()"}},
		{lock(advisory, pglock.Note("")), []string{"Note()", "Leases()"}},
		{lockAll(advisory, pglock.Note("a")), []string{"Note()", "Leases()"}},
		{lock(leases, pglock.Note(strings.Repeat("ä", 101))), []string{"Note()", "202 bytes", "200"}},
		{lock(leases, pglock.Note("\xff")), []string{"Note()", "UTF-8"}},
		{lock(leases, pglock.Note("a\x00")), []string{"Note()", "zero byte"}},
		{do(advisory, pglock.Every(time.Hour)), []string{"Every()", "Leases()"}},
		{do(leases, pglock.Every(0)), []string{"Every(0s)", "1ms"}},
		{do(leases, pglock.Every(-time.Hour)), []string{"Every(-1h0m0s)", "1ms"}},
		{doAll(leases, pglock.Every(time.Hour)), []string{"Every(1h0m0s)", "one key"}},
		{do(leases, pglock.Every(time.Hour), pglock.Slots(3)), []string{"Every(1h0m0s)", "Slots(3)"}},
		{lock(advisory, pglock.Slots(0)), []string{"Slots(0)", "from 1 to 1000"}},
		{lock(advisory, pglock.Slots(1001)), []string{"Slots(1001)", "from 1 to 1000"}},
		{lock(advisory, pglock.Slots(3), pglock.Shared()), []string{"Slots(3)", "Shared()"}},
		{lockAll(advisory, pglock.Slots(3)), []string{"Slots(3)", "one key"}},
		{doAll(advisory, pglock.Slots(3)), []string{"Slots(3)", "one key"}},
	} {
		for _, text := range test.says {
			if test.err == nil || !strings.Contains(test.err.Error(), text) {
				t.Errorf("%v: does not say %q", test.err, text)
			}
		}
	}
	if len(source.opens) > 0 {
		t.Error("a session was opened")
	}
}
