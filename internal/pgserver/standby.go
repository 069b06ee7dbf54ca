package pgserver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Standby starts a second server that streams from this one, and returns when it accepts
// connections and streams. It has its own folder, address and Stop. [Server.Promote]
// makes it a primary. ctx covers only the start.
//
// It is created like pg_basebackup does, which not all binaries include: the data folder
// is copied between the start and the stop of a backup (PostgreSQL manual, 26.3.3 "Making
// a Base Backup Using the Low Level API").
func (s *Server) Standby(ctx context.Context) (_ *Server, err error) {
	if s.guard == nil {
		return nil, errExistingServer
	}
	standby := &Server{options: s.options, bin: s.bin, id: s.id}
	port := 5432 // only names the socket, unless TCP is set
	if s.options.TCP {
		if port, err = FreePort(ctx); err != nil {
			return nil, err
		}
	}
	if err := standby.makeFolder(port); err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			err = errors.Join(err, standby.Stop())
		}
	}()
	slot, err := randomName("standby_")
	if err != nil {
		return nil, err
	}
	if err := s.copyTo(ctx, standby, slot); err != nil {
		return nil, fmt.Errorf("pgserver: creating a standby: %w", err)
	}
	if err := standby.launch(ctx); err != nil {
		return nil, err
	}
	if err := s.awaitStreaming(ctx, slot); err != nil {
		return nil, err
	}
	started = true
	return standby, nil
}

// copyTo fills the data folder of a standby. The slot keeps the WAL that it will stream
// first.
func (s *Server) copyTo(ctx context.Context, standby *Server, slot string) error {
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.ExecParams(ctx, "SELECT pg_catalog.pg_create_physical_replication_slot($1, true)",
		[][]byte{[]byte(slot)}, nil, nil, nil).Read().Err; err != nil {
		return err
	}
	begin, end := "SELECT pg_catalog.pg_backup_start('standby', true)", "SELECT labelfile FROM pg_catalog.pg_backup_stop(false)"
	if s.bin.Major < 15 {
		begin, end = "SELECT pg_catalog.pg_start_backup('standby', true, false)", "SELECT labelfile FROM pg_catalog.pg_stop_backup(false, false)"
	}
	if err := conn.Exec(ctx, begin).Close(); err != nil {
		return err
	}
	data := filepath.Join(standby.folder, "data")
	hba := filepath.Join(s.folder, "pg_hba.conf")
	config := standby.options.config(standby.folder, standby.address.port, filepath.Join(standby.folder, "pg_hba.conf")) +
		fmt.Sprintf("primary_conninfo = 'host=%s port=%d user=%s application_name=%s'\nprimary_slot_name = '%s'\n",
			s.folder, s.address.port, s.address.user, slot, slot)
	// Files change while tar reads them, for which it exits with 1. Their changes are in
	// the WAL.
	const script = `
		mkdir -m 700 "$2" && cp "$3" "$2/../pg_hba.conf" && cd "$1" && {
			tar -cf - --exclude='./postmaster.*' --exclude='./pg_wal/*' --exclude='./pg_replslot/*' --exclude='./pg_dynshmem/*' . ||
				[ $? = 1 ] || touch "$2/broken"
		} | tar -xpf - -C "$2" && [ ! -e "$2/broken" ] && mkdir -p "$2/pg_wal/archive_status" &&
			printf '%s' "$4" >>"$2/postgresql.conf" && touch "$2/standby.signal"`
	if _, err := s.id.run(ctx, nil, nil, "/bin/sh", "-c", script, "sh", filepath.Join(s.folder, "data"), data, hba, config); err != nil {
		return fmt.Errorf("copying the data folder: %w", err)
	}
	results, err := conn.Exec(ctx, end).ReadAll()
	if err != nil {
		return err
	}
	label := string(results[0].Rows[0][0])
	_, err = s.id.run(ctx, nil, strings.NewReader(label), "/bin/sh", "-c", `cat >"$1"`, "sh", filepath.Join(data, "backup_label"))
	return err
}

// awaitStreaming waits until the standby streams.
func (s *Server) awaitStreaming(ctx context.Context, slot string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the standby did not stream within a minute"))
	defer cancel()
	return s.maintain(ctx, func(conn *pgconn.PgConn) error {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			rows, err := queryColumn(ctx, conn, `SELECT 1::text FROM pg_catalog.pg_stat_replication
				WHERE application_name = $1 AND state = 'streaming'`, slot)
			if err != nil || len(rows) == 1 {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("pgserver: waiting for the standby: %w", context.Cause(ctx))
			case <-ticker.C:
			}
		}
	})
}

// Promote makes a standby a primary, and returns when it is one. The former primary is
// not changed: if it still runs, there are two primaries.
func (s *Server) Promote(ctx context.Context) error {
	return s.maintain(ctx, func(conn *pgconn.PgConn) error {
		results, err := conn.Exec(ctx, "SELECT pg_catalog.pg_promote(true, 60)::text").ReadAll()
		if err == nil && string(results[0].Rows[0][0]) != "true" {
			err = errors.New("the standby was not promoted within a minute")
		}
		if err != nil {
			return fmt.Errorf("pgserver: promoting: %w", err)
		}
		return nil
	})
}
