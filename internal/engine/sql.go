package engine

import (
	_ "embed"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// The statements of the files, without the comments at their beginning, which are for
// readers and for psql: pg_stat_activity shows what is sent.
var (
	oneSQL     = statementsByLetter(oneFile)
	batchSQL   = sqltext.WithoutComment(batchFile)
	waitSQL    = statementsByLetter(waitFile)
	heldSQL    = sqltext.WithoutComment(heldFile)
	cancelSQL  = sqltext.WithoutComment(cancelFile)
	pingSQL    = sqltext.WithoutComment(pingFile)
	queuedSQL  = sqltext.WithoutComment(queuedFile)
	holdersSQL = sqltext.WithoutComment(holdersFile)
	awaitedSQL = sqltext.WithoutComment(awaitedFile)
)

var (
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

// statementsByLetter returns the statements of a file by the letter in the comment before
// each. Each operation has its own statement, so that pg_stat_activity shows what it
// does.
func statementsByLetter(file string) map[string]string {
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

// letter returns the letter of an operation in one.sql, batch.sql and wait.sql.
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

// columns returns the key's classid, objid and objsubid in pg_locks, as statement
// arguments.
func (k Key) columns() (classid, objid, objsubid string) {
	objsubid = "1"
	if k.Pair {
		objsubid = "2"
	}
	return strconv.FormatUint(uint64(k.ID)>>32, 10), strconv.FormatUint(uint64(uint32(k.ID)), 10), objsubid
}

// A heldLock is an advisory lock, as held.sql reports it.
type heldLock struct {
	key  Key
	mode Mode
}

// parseHeld parses the result of held.sql. It skips locks of a form that pglock does not
// take, which a function of an extension might.
func parseHeld(reply string) map[heldLock]bool {
	held := make(map[heldLock]bool)
	for _, lock := range strings.Split(reply, ",") {
		fields := strings.Fields(lock)
		if len(fields) != 4 {
			continue
		}
		classid, err1 := strconv.ParseUint(fields[0], 10, 32)
		objid, err2 := strconv.ParseUint(fields[1], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		a := heldLock{key: Key{ID: int64(classid<<32 | objid), Pair: fields[2] == "2"}}
		if fields[3] == "ShareLock" {
			a.mode = Shared
		}
		held[a] = true
	}
	return held
}
