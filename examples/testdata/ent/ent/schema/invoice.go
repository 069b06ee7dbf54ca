// Package schema defines the models that ent generates its code from.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// Invoice is a model; ent calls its table invoices.
type Invoice struct{ ent.Schema }

// Fields returns the columns besides ent's own id.
func (Invoice) Fields() []ent.Field {
	return []ent.Field{
		field.Int64("number").Unique(),
		field.Int64("amount"),
		field.Bool("closed").Default(false),
	}
}
