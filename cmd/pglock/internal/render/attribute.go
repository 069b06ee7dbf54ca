package render

import (
	"slices"

	"github.com/pglock-go/pglock/inspect"
)

// FindAttribute returns the attribute with this name, and whether there is one.
func FindAttribute(attributes []inspect.Attribute, name string) (inspect.Attribute, bool) {
	i := slices.IndexFunc(attributes, func(a inspect.Attribute) bool { return a.Name == name })
	if i < 0 {
		return inspect.Attribute{}, false
	}
	return attributes[i], true
}

// sessionAttributes returns the attributes of sessions.
func sessionAttributes() []inspect.Attribute {
	var attributes []inspect.Attribute
	pairs := inspect.PairAttributes()
	for _, a := range inspect.Attributes() {
		if _, ok := FindAttribute(pairs, "blocking_"+a.Name); ok {
			attributes = append(attributes, a)
		}
	}
	return attributes
}
