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
// fields names. They may come and go while RunFor runs.
//
// All of them belong to one run: if one of them blocks another, it is never ended. So
// do not choose by a role that other programs use as well.
type Who struct {
	PIDs         []int32  // PIDs of their backends
	Applications []string // exact application_name, at most 63 bytes
	Users        []string // their roles

	start time.Time // backend_start of the single PID, if known
}

// maxName is the maximum length of a name in Postgres (NAMEDATALEN - 1).
const maxName = 63

func (w Who) check() error {
	if len(w.PIDs)+len(w.Applications)+len(w.Users) == 0 {
		return errors.New("no sessions selected: set PIDs, Applications or Users")
	}
	if slices.Contains(w.PIDs, 0) {
		return errors.New("0 is not a PID")
	}
	if slices.Contains(w.Applications, "") || slices.Contains(w.Users, "") {
		return errors.New("a name is empty")
	}
	if slices.ContainsFunc(slices.Concat(w.Applications, w.Users), func(name string) bool {
		return !utf8.ValidString(name) || strings.Contains(name, "\x00")
	}) {
		return errors.New("a name is not UTF-8 or contains a NUL")
	}
	if slices.ContainsFunc(w.Applications, func(name string) bool { return len(name) > maxName }) {
		return errors.New("an application_name is longer than 63 bytes, which is the maximum in Postgres")
	}
	if slices.Contains(w.Applications, watcherName) {
		return errors.New("that application_name is reserved for watchers")
	}
	return nil
}

// matches reports whether w chooses the session.
func (w Who) matches(s *inspect.Session) bool {
	return slices.Contains(w.PIDs, s.PID) && s.PID != 0 ||
		slices.Contains(w.Applications, s.Application) && s.Application != "" ||
		slices.Contains(w.Users, s.User) && s.User != ""
}

// json returns w as the parameter of poll.sql.
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
