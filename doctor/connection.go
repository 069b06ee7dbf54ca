package doctor

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/termtext"
)

var (
	//go:embed server.sql
	serverSQL string

	//go:embed connection.sql
	connectionSQL string
)

// The major versions that pglock works with, and that it is tested with.
const (
	oldestMajor = 12
	newestMajor = 18
)

// A server is the reply to server.sql, and what the client measured.
type server struct {
	Version           int     `json:"version"`
	VersionText       string  `json:"version_text"`
	InRecovery        bool    `json:"in_recovery"`
	Time              float64 `json:"time"`
	Database          string  `json:"database"`
	User              string  `json:"user"`
	Login             string  `json:"login"`
	PID               int32   `json:"pid"`
	Superuser         bool    `json:"superuser"`
	Inherits          bool    `json:"inherits"`
	SeesAll           bool    `json:"sees_all"`
	SeesMember        bool    `json:"sees_member"`
	SignalsAll        bool    `json:"signals_all"`
	SignalsMember     bool    `json:"signals_member"`
	SignalsAutovacuum *bool   `json:"signals_autovacuum"`

	clockDiff, trip time.Duration
}

// greet identifies the session and reads what all checks need.
func (e *examination) greet(ctx context.Context) error {
	var err error
	if e.hello, err = handshake.Greet(ctx, e.session); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	before := e.now()
	if e.server, err = ask[server](ctx, e, serverSQL); err != nil {
		return err
	}
	e.server.measure(before, e.now())
	return nil
}

// measure compares the server's clock with the middle of the round trip.
func (s *server) measure(before, after time.Time) {
	s.trip = after.Sub(before)
	s.clockDiff = time.UnixMicro(int64(s.Time * 1e6)).Sub(before.Add(s.trip / 2)).Abs()
}

// describe returns the server in the words of package inspect.
func (s *server) describe() inspect.Server {
	return inspect.Server{
		Version:    s.Version,
		InRecovery: s.InRecovery,
		Time:       time.UnixMicro(int64(s.Time * 1e6)).UTC(),
		Database:   s.Database,
		User:       s.User,
		PID:        s.PID,
		SeesAll:    s.SeesAll,
		SignalsAll: s.SignalsAll,
	}
}

// major returns the major version.
func (s *server) major() int { return s.Version / 10000 }

// versionFinding reports whether pglock works with this version.
func (s *server) versionFinding() Finding {
	f := Finding{Check: "connection", ID: "version", Level: OK}
	text, _, _ := strings.Cut(s.VersionText, " ") // without the name of the distribution
	f.Text = "Postgres " + text
	switch {
	case s.major() < oldestMajor:
		f.Level = Problem
		f.Text += fmt.Sprintf(" is too old: pglock works with %d and newer", oldestMajor)
		f.Note = "upgrade the server"
	case s.major() > newestMajor:
		f.Text += fmt.Sprintf(", expected to work: pglock was tested with %d to %d", oldestMajor, newestMajor)
	}
	f.Text += termtext.Line(fmt.Sprintf("; role %q in database %q", s.User, s.Database))
	return f
}

// A route is the reply to connection.sql.
type route struct {
	Client  *string `json:"client"`
	Server  *string `json:"server"`
	Port    string  `json:"port"`
	Sockets *string `json:"sockets"`
	TLS     *string `json:"tls"`
}

// direct returns connection settings that lead to the server itself, or "" if its
// address is not known.
func (r route) direct() string {
	switch {
	case r.Server != nil:
		return "host=" + *r.Server + " port=" + r.Port
	case r.Sockets != nil && *r.Sockets != "":
		folder, _, _ := strings.Cut(*r.Sockets, ",")
		return "host=" + strings.TrimSpace(folder) + " port=" + r.Port
	}
	return ""
}

// inConnectionString is the note for advice that is not SQL but a connection setting.
const inConnectionString = "in the connection string"

func checkConnection(ctx context.Context, e *examination) ([]Finding, error) {
	findings := []Finding{e.server.versionFinding()}
	r, err := ask[route](ctx, e, connectionSQL)
	if err != nil {
		return findings, err
	}
	pooled := e.hello.Path == handshake.Pooled
	if e.wants("connection") || e.wants("pooler") {
		mode := unknownMode
		if pooled {
			mode = e.poolerMode(ctx)
		}
		findings = append(findings, poolerFinding(e.hello.Path, mode, r.direct()))
	}
	return append(findings, r.tlsFinding(pooled), e.server.clockFinding(), e.server.standbyFinding()), nil
}

// tlsFinding reports whether the connection is encrypted, if it leaves the machine.
func (r route) tlsFinding(pooled bool) Finding {
	f := Finding{ID: "tls", Level: OK}
	switch {
	case r.TLS != nil:
		f.Text = *r.TLS
	case r.Client == nil:
		f.Text = "Unix socket"
	case isLoopback(*r.Client):
		f.Text = "TCP within the machine"
	default:
		f.Level = Warning
		f.Text = "the connection from " + *r.Client + " is not encrypted"
		f.Advice = []string{"sslmode=require"}
		f.Note = inConnectionString + "; the server needs ssl = on and a certificate"
	}
	if pooled {
		f.Text += " between the pooler and the server"
	}
	return f
}

func isLoopback(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.Unmap().IsLoopback()
}

// maxClockDiff is how far apart the clocks may be. The server's times are shown, and
// compared with the client's logs.
const maxClockDiff = time.Second

// clockFinding compares the clocks. The server's time is from an unknown moment of the
// round trip, so half of that is subtracted.
func (s *server) clockFinding() Finding {
	f := Finding{ID: "clock", Level: OK, Text: fmt.Sprintf("clocks %s apart", termtext.Duration(s.clockDiff))}
	if s.clockDiff-s.trip/2 > maxClockDiff {
		f.Level = Warning
		f.Text = fmt.Sprintf("the clocks of this machine and of the server are %s apart", termtext.Duration(s.clockDiff))
		f.Advice = []string{"timedatectl set-ntp true"}
		f.Note = "in a shell, as root, on the machine whose clock is wrong"
	}
	return f
}

// standbyFinding reports a standby, whose locks exclude no session of the primary.
func (s *server) standbyFinding() Finding {
	if !s.InRecovery {
		return Finding{ID: "standby", Level: OK, Text: "primary"}
	}
	return Finding{
		ID: "standby", Level: Warning,
		Text:   "this is a standby: its locks exclude nobody on the primary, so pglock refuses to take any here",
		Advice: []string{"target_session_attrs=read-write"},
		Note:   inConnectionString + ", with the hosts of all servers",
	}
}
