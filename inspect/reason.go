package inspect

// A Class is a kind of session that is not signaled unless it is explicitly allowed:
// see [Allow], and Allow in package prioritize. Both packages use the same classes.
type Class string

const (
	// Ourselves is the session that sends the signals. In package prioritize it is
	// every session of the run, which is never signaled.
	Ourselves Class = "self"

	// Superusers are the sessions of superuser roles other than the role that signals
	// (or has switched to by SET ROLE). Only a superuser can end them. Only package
	// prioritize protects them.
	Superusers Class = "superusers"

	// WALSenders serve a standby or a backup. A process whose type is hidden counts
	// as one if its role has the REPLICATION attribute. Package prioritize counts
	// them as Background.
	WALSenders Class = "walsender"

	// Autovacuum is an autovacuum worker. It yields by itself once a session has
	// waited for it for deadlock_timeout (1 s by default), unless it prevents
	// transaction ID wraparound; then a new one would start again. Only a superuser
	// can end it, and from Postgres 18 on a member of pg_signal_autovacuum_worker
	// (PostgreSQL manual, 24.1.6 "The Autovacuum Daemon").
	Autovacuum Class = "autovacuum"

	// Background is any other process that is not a client backend, such as a worker
	// of logical replication, of an extension or of a parallel query.
	Background Class = "background"

	// OtherRuns are the sessions whose way another run of package prioritize clears,
	// and that run's watcher. Only package prioritize protects them, always.
	OtherRuns Class = "runs"
)

// A Reason is why a session was not signaled.
type Reason string

const (
	Gone         Reason = "gone"          // it has ended
	NotBlocking  Reason = "not blocking"  // it no longer blocks any of the sessions that it was to be ended for
	Idle         Reason = "idle"          // it runs no statement, so a cancel would release nothing
	Protected    Reason = "protected"     // it belongs to a Class that was not allowed
	Wraparound   Reason = "wraparound"    // likewise, and it is an autovacuum to prevent transaction ID wraparound
	Hidden       Reason = "hidden"        // our role cannot verify that it is still the same session
	NotPermitted Reason = "not permitted" // Postgres does not permit it to our role
	NoProcess    Reason = "no process"    // a prepared transaction, which no signal ends
	Waiting      Reason = "waiting"       // it waits for another session itself, and [OnlyRoots] was given
	Failed       Reason = "failed"        // Postgres reported an error

	// Only package prioritize has these reasons.
	Excluded   Reason = "excluded"    // the filters do not match it: see Only
	Queued     Reason = "queued"      // it holds no conflicting lock and is only ahead in the lock queue
	MaxReached Reason = "max reached" // the maximum number of sessions was ended
	TooLate    Reason = "too late"    // it came after the moment that Once acts on
)
