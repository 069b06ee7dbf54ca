package engine

import (
	_ "embed"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/handshake"
)

// The files begin with comments, for those who read them and run them in psql. What
// is sent, and what pg_stat_activity shows of a session, is the statement alone.
var (
	keepaliveSQL = handshake.WithoutComment(keepaliveFile)
	oneSQL       = byLetter(oneFile)
	batchSQL     = handshake.WithoutComment(batchFile)
	waitSQL      = byLetter(waitFile)
	heldSQL      = handshake.WithoutComment(heldFile)
	cancelSQL    = handshake.WithoutComment(cancelFile)
	pingSQL      = handshake.WithoutComment(pingFile)
	queuedSQL    = handshake.WithoutComment(queuedFile)
	holdersSQL   = handshake.WithoutComment(holdersFile)
	awaitedSQL   = handshake.WithoutComment(awaitedFile)
)

var (
	//go:embed sql/keepalive.sql
	keepaliveFile string
	//go:embed sql/one.sql
	oneFile string
	//go:embed sql/batch.sql
	batchFile string
	//go:embed sql/wait.sql
	waitFile string
	//go:embed sql/held.sql
	heldFile string
	//go:embed sql/cancel.sql
	cancelFile string
	//go:embed sql/ping.sql
	pingFile string
	//go:embed sql/queued.sql
	queuedFile string
	//go:embed sql/holders.sql
	holdersFile string
	//go:embed sql/awaited.sql
	awaitedFile string
)

// byLetter are the statements of a file by the letters in the comments before them.
// There is one for each thing to do, so that pg_stat_activity shows what that is.
func byLetter(file string) map[string]string {
	statements := make(map[string]string)
	var letter string
	for line := range strings.Lines(file) {
		comment, ok := strings.CutPrefix(line, "-- ")
		switch {
		case ok && len(comment) == len("X\n"):
			letter = comment[:1]
		case !ok && letter != "":
			statements[letter] += line
		}
	}
	for letter, text := range statements {
		statements[letter] = strings.TrimSuffix(strings.TrimSpace(text), ";")
	}
	return statements
}

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
	case opConfirm:
		return "C"
	default: // opProbe
		if key.Pair {
			return "q"
		}
		return "Q"
	}
}

// columns returns the key's classid, objid and objsubid in pg_locks, as statements have
// them.
func (k Key) columns() (classid, objid, objsubid string) {
	objsubid = "1"
	if k.Pair {
		objsubid = "2"
	}
	return strconv.FormatUint(uint64(k.ID)>>32, 10), strconv.FormatUint(uint64(uint32(k.ID)), 10), objsubid
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
