package cli

import (
	"slices"
	"testing"
)

func TestDatabaseNames(t *testing.T) {
	for list, want := range map[string][]string{
		"":                              {""},
		"shop":                          {"shop"},
		"shop,billing":                  {"shop", "billing"},
		"shop, billing ,прод":           {"shop", "billing", "прод"},
		"a.b,c-d,e$f,_g":                {"a.b", "c-d", "e$f", "_g"},
		"host=a,b":                      {"host=a,b"},
		"dbname=a,b":                    {"dbname=a,b"},
		"postgres://a,b:5433/shop":      {"postgres://a,b:5433/shop"},
		"postgresql://u:x,y@h/shop":     {"postgresql://u:x,y@h/shop"},
		"a,postgres://h/b?sslmode=none": {"a,postgres://h/b?sslmode=none"},
		"it's, a name":                  {"it's, a name"},
		"shop,two words":                {"shop,two words"},
		"shop,/tmp":                     {"shop,/tmp"},
	} {
		if got, err := databaseNames(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", list, got, err)
		}
	}
	for _, list := range []string{",", "shop,", ",shop", "shop, ,billing"} {
		if got, err := databaseNames(list); err == nil {
			t.Errorf("%q: %q", list, got)
		}
	}
}

// The first session on a server shows what is in no database of the others, and each the
// rest of its own.
func TestOwns(t *testing.T) {
	shop := &session{name: "shop", server: &server{id: "1", oid: 10, database: "shop"}}
	billing := &session{name: "billing", server: &server{id: "1", oid: 11, database: "billing"}}
	alias := &session{name: "alias", server: &server{id: "1", oid: 10, database: "shop"}}
	prod := &session{name: "prod", server: &server{id: "2", oid: 10, database: "shop"}}
	f := &fleet{several: true}
	all := []*session{shop, billing, alias, prod}
	for _, s := range all {
		f.members = append(f.members, &member{name: s.name, session: s})
	}
	f.findPeers()
	for _, c := range []struct {
		oid      uint32
		database string
		want     []*session
	}{
		{10, "shop", []*session{shop, prod}},
		{11, "billing", []*session{billing, prod}},
		{11, "shop", []*session{billing, prod}}, // the object counts, not its session
		{0, "billing", []*session{billing, prod}},
		{0, "", []*session{shop, prod}},
		{12, "other", []*session{shop, prod}},
		{0, "other", []*session{shop, prod}},
	} {
		var got []*session
		for _, s := range all {
			if s.owns(c.oid, c.database) {
				got = append(got, s)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d %q: %v", c.oid, c.database, got)
		}
	}
	lone := &session{}
	if !lone.owns(12, "other") {
		t.Error("a single database does not show everything")
	}
}
