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
