package prioritize

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pglock-go/pglock/inspect"
)

// Who chooses the sessions whose way [RunFor] clears: each session that any of the
// fields names. They need not be there yet; they may come and go.
//
// They are all of one run: one of them that blocks another is never ended. So do
// not choose by a role that others use as well.
type Who struct {
	PIDs         []int32  // the numbers of their processes
	Applications []string // their application_name: exactly this, at most 63 bytes
	Users        []string // their roles

	start time.Time // when the session of the single PID began, if it is known
}

// maxName is how much of a name Postgres keeps (NAMEDATALEN).
const maxName = 63

func (w Who) check() error {
	if len(w.PIDs)+len(w.Applications)+len(w.Users) == 0 {
		return errors.New("nobody is chosen: set PIDs, Applications or Users")
	}
	if slices.Contains(w.PIDs, 0) {
		return errors.New("0 is no pid")
	}
	if slices.Contains(w.Applications, "") || slices.Contains(w.Users, "") {
		return errors.New("a name is empty")
	}
	if slices.ContainsFunc(slices.Concat(w.Applications, w.Users), func(name string) bool {
		return !utf8.ValidString(name) || strings.Contains(name, "\x00")
	}) {
		return errors.New("a name is not UTF-8, or has a NUL in it")
	}
	if slices.ContainsFunc(w.Applications, func(name string) bool { return len(name) > maxName }) {
		return errors.New("an application_name is longer than the 63 bytes that Postgres keeps of it")
	}
	if slices.Contains(w.Applications, watcherName) {
		return errors.New("that application_name is the watchers' own")
	}
	return nil
}

// matches reports whether a session is one of them.
func (w Who) matches(s *inspect.Session) bool {
	return slices.Contains(w.PIDs, s.PID) && s.PID != 0 ||
		slices.Contains(w.Applications, s.Application) && s.Application != "" ||
		slices.Contains(w.Users, s.User) && s.User != ""
}

// json is what look.sql takes.
func (w Who) json() string {
	asked := struct {
		PIDs         []int32  `json:"pids"`
		Applications []string `json:"applications"`
		Users        []string `json:"users"`
		Only         *int32   `json:"only"`
	}{append([]int32{}, w.PIDs...), append([]string{}, w.Applications...), append([]string{}, w.Users...), nil}
	if len(w.PIDs) == 1 && len(w.Applications)+len(w.Users) == 0 {
		asked.Only = &w.PIDs[0]
	}
	text, _ := json.Marshal(asked) // numbers and text always have a JSON form
	return string(text)
}
