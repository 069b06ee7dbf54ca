package lazyregexp

import "testing"

func TestNew(t *testing.T) {
	pattern := New("^a+$")
	if !pattern().MatchString("aa") || pattern().MatchString("ab") {
		t.Error("another expression")
	}
	if first := pattern(); first != pattern() {
		t.Error("compiled twice")
	}
	invalid := New("(")
	defer func() {
		if recover() == nil {
			t.Error("an invalid expression does not panic")
		}
	}()
	invalid()
}
