package trace_test

import (
	"strings"
	"testing"

	"github.com/pglock-go/pglock/trace"
)

// What is found of each rule that eugene documents, as docs/trace.md tells: in a statement
// that the rule is about, and in its safer form.
func TestBesideEugene(t *testing.T) {
	server := newCopyServer(t)
	for _, test := range []struct {
		rule, unsafe, want string
		safer              string // nothing is found in it
	}{
		{
			rule:   "E1, CHECK",
			unsafe: "ALTER TABLE orders ADD CONSTRAINT c CHECK (status IS NOT NULL)",
			want:   "check-validates",
			safer:  "ALTER TABLE orders ADD CONSTRAINT c CHECK (status IS NOT NULL) NOT VALID\nALTER TABLE orders VALIDATE CONSTRAINT c",
		},
		{
			rule:   "E1, foreign key",
			unsafe: "ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (customer_id) REFERENCES customers",
			want:   "foreign-key-validates",
			safer:  "ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (customer_id) REFERENCES customers NOT VALID\nALTER TABLE orders VALIDATE CONSTRAINT c",
		},
		{
			rule:   "E2",
			unsafe: "ALTER TABLE orders ALTER status SET NOT NULL",
			want:   "not-null-scans",
			safer: "ALTER TABLE orders ADD CONSTRAINT c CHECK (status IS NOT NULL) NOT VALID\n" +
				"ALTER TABLE orders VALIDATE CONSTRAINT c\nALTER TABLE orders ALTER status SET NOT NULL",
		},
		{rule: "E3", unsafe: "ALTER TABLE orders ADD COLUMN data json"},
		{
			rule:   "E4, the same table read",
			unsafe: "ALTER TABLE orders ADD COLUMN a int; SELECT count(*) FROM orders",
			want:   "work-after-lock",
			safer:  "ALTER TABLE orders ADD COLUMN a int\nSELECT count(*) FROM orders",
		},
		{
			rule:   "E4, another table",
			unsafe: "ALTER TABLE orders ADD COLUMN a int; ALTER TABLE customers ADD COLUMN a int",
			want:   "locks-several-tables",
			safer:  "ALTER TABLE orders ADD COLUMN a int\nALTER TABLE customers ADD COLUMN a int",
		},
		{rule: "E4, quick", unsafe: "ALTER TABLE orders ADD COLUMN a int; ALTER TABLE orders RENAME a TO b"},
		{
			rule:   "E5",
			unsafe: "ALTER TABLE plain ALTER a TYPE bigint",
			want:   "rewrite",
			safer:  "ALTER TABLE plain ADD COLUMN a_new bigint\nALTER TABLE plain DROP COLUMN a",
		},
		{
			rule:   "E6",
			unsafe: "CREATE INDEX ON orders (status)",
			want:   "index-not-concurrent",
			safer:  "CREATE INDEX CONCURRENTLY ON orders (status)",
		},
		{
			rule:   "E7",
			unsafe: "ALTER TABLE orders ADD CONSTRAINT c UNIQUE (status)",
			want:   "constraint-builds-index",
			safer:  "CREATE UNIQUE INDEX CONCURRENTLY c ON orders (status)\nALTER TABLE orders ADD CONSTRAINT c UNIQUE USING INDEX c",
		},
		{rule: "E8", unsafe: "ALTER TABLE orders ADD CONSTRAINT c EXCLUDE (status WITH =)", want: "constraint-builds-index"},
		{rule: "E9", unsafe: "SET lock_timeout = 0; ALTER TABLE orders ADD COLUMN a int", want: "no-lock-timeout", safer: "ALTER TABLE orders ADD COLUMN a int"},
		{
			rule:   "E10",
			unsafe: "ALTER TABLE customers ADD COLUMN a int; ALTER TABLE plain ALTER a TYPE bigint",
			want:   "rewrite work-after-lock locks-several-tables",
		},
		{rule: "E11, serial", unsafe: "ALTER TABLE orders ADD COLUMN n serial", want: "default-rewrites"},
		{rule: "E11, generated", unsafe: "ALTER TABLE orders ADD COLUMN n int GENERATED ALWAYS AS (total * 2) STORED", want: "rewrite"},
		{rule: "E15", unsafe: "CREATE INDEX CONCURRENTLY ON items (order_id) WHERE order_id = 1"},
		{
			rule:   "W12",
			unsafe: "ALTER TABLE orders ADD COLUMN a int; ALTER TABLE orders ADD COLUMN b int",
		},
		{rule: "W13", unsafe: "CREATE TYPE kind AS ENUM ('invoice', 'receipt'); ALTER TABLE orders ADD COLUMN k kind"},
		{
			rule:   "W14",
			unsafe: "CREATE UNIQUE INDEX CONCURRENTLY c ON orders (status)\nALTER TABLE orders DROP CONSTRAINT orders_pkey CASCADE\nALTER TABLE orders ADD CONSTRAINT c PRIMARY KEY USING INDEX c",
			want:   "not-null-scans",
			safer:  "CREATE UNIQUE INDEX CONCURRENTLY c ON counted (a)\nALTER TABLE counted ADD CONSTRAINT c PRIMARY KEY USING INDEX c",
		},
	} {
		t.Run(test.rule, func(t *testing.T) {
			// Each line of text is a transaction.
			check := func(text, want string) {
				t.Helper()
				script := "SET lock_timeout = '2s';\n"
				for transaction := range strings.Lines(text) {
					transaction = strings.TrimSuffix(transaction, "\n")
					if strings.Contains(transaction, "CONCURRENTLY") {
						script += transaction + ";\n"
						continue
					}
					script += "BEGIN;\n" + transaction + ";\nCOMMIT;\n"
				}
				report := run(t, server.copy(t), script, trace.Wrapped(trace.WrapNone))
				if err := report.Err(); err != nil {
					t.Fatal(err)
				}
				var rules []string
				for _, s := range report.Statements {
					rules = append(rules, rulesOf(s)...)
				}
				if got := strings.Join(rules, " "); got != want {
					t.Errorf("%s: %q, want %q", text, got, want)
				}
			}
			check(test.unsafe, test.want)
			if test.safer != "" {
				check(test.safer, "")
			}
		})
	}
}
