// Package bench measures pglock beside its peers, in turn, in one run.
package bench
