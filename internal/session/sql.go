package session

import (
	_ "embed"
	"strconv"
	"strings"
)

var (
	//go:embed sql/hello.sql
	helloSQL string
	//go:embed sql/keepalive.sql
	keepaliveSQL string
	//go:embed sql/one.sql
	oneSQL string
	//go:embed sql/batch.sql
	batchSQL string
	//go:embed sql/wait.sql
	waitSQL string
	//go:embed sql/held.sql
	heldSQL string
	//go:embed sql/cancel.sql
	cancelSQL string
	//go:embed sql/ping.sql
	pingSQL string
)

// letter is what one.sql, batch.sql and wait.sql call doing kind to the key in
// the mode.
func letter(kind opKind, key Key, mode Mode) string {
	switch kind {
	case opTry, opWait:
		switch {
		case key.Pair && mode == Shared:
			return "R"
		case key.Pair:
			return "P"
		case mode == Shared:
			return "S"
		}
		return "X"
	case opUnlock:
		switch {
		case key.Pair && mode == Shared:
			return "r"
		case key.Pair:
			return "p"
		case mode == Shared:
			return "s"
		}
		return "x"
	default: // opProbe
		if key.Pair {
			return "q"
		}
		return "Q"
	}
}

// advisory is a lock as held.sql tells of it.
type advisory struct {
	key  Key
	mode Mode
}

// parseHeld reads the answer of held.sql. Locks of no form that we take are left
// out: a function that an extension put in our way might take them.
func parseHeld(answer string) map[advisory]bool {
	held := make(map[advisory]bool)
	for _, lock := range strings.Split(answer, ",") {
		fields := strings.Fields(lock)
		if len(fields) != 4 {
			continue
		}
		classid, err1 := strconv.ParseUint(fields[0], 10, 32)
		objid, err2 := strconv.ParseUint(fields[1], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		a := advisory{key: Key{ID: int64(classid<<32 | objid), Pair: fields[2] == "2"}}
		if fields[3] == "ShareLock" {
			a.mode = Shared
		}
		held[a] = true
	}
	return held
}
