package prioritize_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/pglock-go/pglock/prioritize"
)

// Each function accepts exactly the options that it supports: a wrong one does not
// compile. A result of a function can be passed as an argument if its type is assignable
// to the argument's.
func TestOptionsOfEachFunction(t *testing.T) {
	t.Parallel()
	options := map[string]any{
		"OnEvent": prioritize.OnEvent, "LockTimeout": prioritize.LockTimeout, "After": prioritize.After,
		"Cancel": prioritize.Cancel, "Terminate": prioritize.Terminate, "CancelThenTerminate": prioritize.CancelThenTerminate,
		"Call": prioritize.Call, "Only": prioritize.Only, "Max": prioritize.Max, "Every": prioritize.Every, "Once": prioritize.Once,
		"Interval": prioritize.Interval, "ClearQueue": prioritize.ClearQueue, "Allow": prioritize.Allow,
		"Budget": prioritize.Budget, "Tries": prioritize.Tries, "Backoff": prioritize.Backoff,
	}
	runFor := []string{
		"OnEvent", "After", "Cancel", "Terminate", "CancelThenTerminate", "Call", "Only", "Max", "Every", "Once",
		"Interval", "ClearQueue", "Allow",
	}
	run := append(slices.Clone(runFor), "LockTimeout")
	retry := []string{"OnEvent", "LockTimeout", "Budget", "Tries", "Backoff"}
	for name, test := range map[string]struct {
		function any
		want     []string
	}{
		"Run":     {prioritize.Run[any], run},
		"RunOn":   {prioritize.RunOn, run},
		"RunFor":  {prioritize.RunFor, runFor},
		"Retry":   {prioritize.Retry[any], retry},
		"RetryOn": {prioritize.RetryOn, retry},
	} {
		f := reflect.TypeOf(test.function)
		accepted := f.In(f.NumIn() - 1).Elem()
		for option, make := range options {
			got := reflect.TypeOf(make).Out(0).AssignableTo(accepted)
			if want := slices.Contains(test.want, option); got != want {
				t.Errorf("%s accepts %s: %v, want %v", name, option, got, want)
			}
		}
	}
}
