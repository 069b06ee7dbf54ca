// Package doctor checks whether a database is set up well for working with locks: the
// connection and a pooler in it, what the role may see and end, the server's settings,
// the room for locks and connections, and transactions that were forgotten. Each finding
// has the statement that mends it.
//
//	report, err := doctor.Run(ctx, pgxlock.Pool(pool)) // or sqllock.DB(db)
//	if err != nil {
//		return err // the server could not be asked
//	}
//	for _, f := range report.Findings {
//		if f.Level != doctor.OK {
//			log.Println(f.ID, f.Text, f.Advice, f.Note)
//		}
//	}
//
// # Checks
//
//	connection  version, pooler, tls, clock, standby
//	sees        sees
//	ends        ends, superusers, autovacuum
//	settings    log_lock_waits, deadlock_timeout, track_activities,
//	            track_activity_query_size, idle_in_transaction_session_timeout, and
//	            statement_timeout, lock_timeout, idle_session_timeout and
//	            transaction_timeout if they are set
//	room        lock_table, connections
//	now         prepared, idle
//
// These are the names of the checks and of the findings of each, for [Only].
//
// # What it changes
//
// Nothing. It works on its own sessions, which end with it. It sets nothing in them that
// outlasts a statement, so behind a pooler it leaves the server's sessions as they were.
// A pooler in statement mode closes one of them, because it refuses the transaction that
// tells this mode from the others.
// The statements of its advice are never run.
package doctor
