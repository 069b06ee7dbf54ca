// Package config reads the command's config file: named databases, and named views,
// each of which selects locks and how they are shown.
//
// The file is YAML; docs/config.md describes it. An error in the file names the line
// and lists the valid choices.
package config
