package render

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/termtext"
)

func TestJSONValue(t *testing.T) {
	for _, text := range []string{"<a & b>", "\x1b\x7f\u009b\u202e\U000e0001\n\"\\", "漢字"} {
		b, err := jsonValue(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range string(b) {
			if !termtext.Shows(r) {
				t.Errorf("%q: %q", text, b)
			}
		}
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != text {
			t.Errorf("%q: %q, %v", text, back, err)
		}
	}
	if b, _ := jsonValue(1500 * time.Millisecond); string(b) != "1.5" {
		t.Errorf("%s", b)
	}
}
