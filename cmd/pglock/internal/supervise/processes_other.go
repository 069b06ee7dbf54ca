//go:build unix && !linux && !darwin

package supervise

import "errors"

// processes returns an error: each of these systems lists processes in its own way.
func processes() ([]process, error) { return nil, errors.ErrUnsupported }
