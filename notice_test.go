package pglock_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/doctor"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

// A warning at login is neither an error nor taken for an answer. Postgres 19 sends one
// after an MD5 login and before a password expires; a login trigger sends it from
// Postgres 17 on.
func TestCatalogWarningAtLogin(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	var version int
	if d.scan(&version, `SELECT current_setting('server_version_num')::int`); version < 170000 {
		t.Skip("there are no login triggers before Postgres 17")
	}
	d.exec(`CREATE FUNCTION warn() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'your password expires'; END$$`)
	d.exec(`CREATE EVENT TRIGGER warn ON login EXECUTE FUNCTION warn()`)
	d.exec(`ALTER EVENT TRIGGER warn ENABLE ALWAYS`)
	dsn := d.conn.Config().ConnString()
	config, err := pgx.ParseConfig(dsn)
	must(t, err)
	warned := 0
	config.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { warned++ }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	must(t, conn.Close(t.Context()))
	if warned != 1 {
		t.Fatalf("a plain client gets %d warnings", warned)
	}
	for name, source := range poolerSources(t, dsn) {
		locker := newLocker(t, source)
		held, err := locker.Lock(t.Context(), pglock.Name("job"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d.wantAvailable(pglock.Name("job"), false)
		must(t, held.Unlock())
		report, err := doctor.Run(t.Context(), source, doctor.Only("connection", "room"))
		if err != nil || len(report.Findings) < 7 {
			t.Errorf("%s: doctor: %v, %v", name, report.Findings, err)
		}
		must(t, locker.Close())
	}
	if _, err := inspect.Locks(t.Context(), pgxlock.ConnString(dsn)); err != nil {
		t.Error(err)
	}
}
