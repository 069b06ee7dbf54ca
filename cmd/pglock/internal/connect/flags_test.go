package connect

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"
)

// environment is an empty environment.
func environment(string) (string, bool) { return "", false }

// An error about settings never contains the password.
func TestNoPasswordInErrors(t *testing.T) {
	for _, database := range []string{
		"postgres://u:sEcReT@h:port/d",
		"postgres://u:sEc/ReT@h/d?sslmode=loud",
		"postgres://u:x:sEcReT@h:99999/d",
		"postgres://u:sEcReT%zz@h/d",
		"postgres://u:sEcReT%00@h/d",
		"postgres://h/d?password=sEcReT%00",
		"postgres://h/d?password=sEcReT&sslmode=loud",
		"postgres://h/d?password=sEcReT=sEcReT",
		"postgres://h/d?password&sEcReT",
		"host=h password=sEcReT port=x",
		"host=h password='x sEcReT",
		"host=h password=x sEcReT",
		"host=h password=x sEcReT port=1",
		"password = sEcReT sslmode=loud host=h",
		"postgres://u:p@sEcReT@h/d",
		"u:sEcReT@h/d?x=y",
	} {
		target, err := Flags{Database: database}.Target(environment, "test")
		if err == nil {
			_, err = target.Connect(t.Context())
		}
		if err == nil {
			t.Errorf("%s: no error", database)
		} else if strings.Contains(err.Error(), "sEc") || strings.Contains(err.Error(), "ReT") {
			t.Errorf("%s: %v", database, err)
		}
	}
}

// The common name of a certificate counts if it has no other name of the host's kind
// (PostgreSQL manual, 34.19.1).
func TestVerifyName(t *testing.T) {
	for _, test := range []struct {
		common string
		dns    []string
		ips    []net.IP
		host   string
		ok     bool
	}{
		{common: "db.example", host: "db.example", ok: true},
		{common: "DB.example", host: "db.EXAMPLE", ok: true},
		{common: "*.example", host: "db.example", ok: true},
		{common: "*.example", host: "a.db.example"},
		{common: "*.example", host: "example"},
		{common: "db.example", host: "other.example"},
		{common: "db.example", dns: []string{"other.example"}, host: "db.example"},
		{common: "db.example", dns: []string{"other.example"}, host: "other.example", ok: true},
		{common: "db.example", ips: []net.IP{net.IPv4(127, 0, 0, 1)}, host: "db.example", ok: true},
		{common: "127.0.0.1", host: "127.0.0.1", ok: true},
		{common: "127.0.0.1", ips: []net.IP{net.IPv4(127, 0, 0, 2)}, host: "127.0.0.1"},
		{common: "x", ips: []net.IP{net.IPv4(127, 0, 0, 1)}, host: "127.0.0.1", ok: true},
		{host: ""},
	} {
		certificate := &x509.Certificate{Subject: pkix.Name{CommonName: test.common}, DNSNames: test.dns, IPAddresses: test.ips}
		if err := verifyName(certificate, test.host); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
