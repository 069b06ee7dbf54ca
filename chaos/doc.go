// Package chaos proves that locks stay locks while things break: processes take and
// release them under faults, every operation is recorded, and a checker decides
// whether the history is one of correct locks.
package chaos
