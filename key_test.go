package pglock_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/pglock-go/pglock"
	"pgregory.net/rapid"
)

// vectors never change: Go, Python and psql must agree on them.
type vectors struct {
	Names []struct {
		Name string `json:"name"`
		vector
	} `json:"names"`
	Ints  []vector `json:"ints"`
	Pairs []struct {
		Class  int32 `json:"class"`
		Object int32 `json:"object"`
		vector
	} `json:"pairs"`
}

type vector struct {
	Key      int64  `json:"key"`
	ClassID  uint32 `json:"classid"`
	ObjID    uint32 `json:"objid"`
	ObjSubID int16  `json:"objsubid"`
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/advisory_keys.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Names) == 0 || len(v.Ints) == 0 || len(v.Pairs) == 0 {
		t.Fatal("testdata/advisory_keys.json lacks names, ints or pairs")
	}
	return v
}

func (v vector) check(t *testing.T, key pglock.Key) {
	t.Helper()
	classid, objid, objsubid := key.PgLocks()
	if classid != v.ClassID || objid != v.ObjID || objsubid != v.ObjSubID {
		t.Errorf("%v: pg_locks has (%d, %d, %d), want (%d, %d, %d)",
			key, classid, objid, objsubid, v.ClassID, v.ObjID, v.ObjSubID)
	}
	back, ok := pglock.PgLocksKey(v.ClassID, v.ObjID, v.ObjSubID)
	if !ok || back.ID() != key.ID() || isPair(back) != isPair(key) {
		t.Errorf("%v: read back from pg_locks as %v, %v", key, back, ok)
	}
}

func isPair(key pglock.Key) bool {
	_, _, ok := key.Pair()
	return ok
}

func TestKeyVectors(t *testing.T) {
	v := readVectors(t)
	for _, n := range v.Names {
		key := pglock.Name(n.Name)
		if key.ID() != n.Key || isPair(key) {
			t.Errorf("Name(%q) is %d, want %d", n.Name, key.ID(), n.Key)
		}
		n.check(t, key)
	}
	for _, n := range v.Ints {
		key := pglock.Int(n.Key)
		if key.ID() != n.Key || isPair(key) {
			t.Errorf("Int(%d) is %d", n.Key, key.ID())
		}
		n.check(t, key)
	}
	for _, p := range v.Pairs {
		key := pglock.Pair(p.Class, p.Object)
		if class, object, ok := key.Pair(); class != p.Class || object != p.Object || !ok {
			t.Errorf("Pair(%d, %d) returned as (%d, %d), %v", p.Class, p.Object, class, object, ok)
		}
		p.check(t, key)
	}
}

func TestKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := pglock.Int(rapid.Int64().Draw(t, "id"))
		if rapid.Bool().Draw(t, "pair") {
			key = pglock.Pair(rapid.Int32().Draw(t, "class"), rapid.Int32().Draw(t, "object"))
		}
		if back, ok := pglock.PgLocksKey(key.PgLocks()); !ok || back != key {
			t.Fatalf("%v returned from pg_locks as %v, %v", key, back, ok)
		}
	})
}

func TestKeyForeignObjsubid(t *testing.T) {
	for _, objsubid := range []int16{0, 3, 11, -1} {
		if key, ok := pglock.PgLocksKey(1, 2, objsubid); ok {
			t.Errorf("objsubid %d was read as %v", objsubid, key)
		}
	}
}

func TestKeyString(t *testing.T) {
	for _, test := range []struct {
		key  pglock.Key
		want string
	}{
		{pglock.Key{}, "0"},
		{pglock.Int(-5), "-5"},
		{pglock.Pair(-7, 9), "(-7, 9)"},
		{pglock.Name("nightly-report"), `"nightly-report" (-8663603374018903193)`},
		{pglock.Name("new\nline"), `"new\nline" (2004759226863844184)`},
	} {
		if got := test.key.String(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}
