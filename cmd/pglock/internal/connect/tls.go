package connect

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A certificateError says why the server's certificate does not do.
type certificateError struct{ err error }

func (e *certificateError) Error() string {
	return "the server's certificate does not do: " + strings.TrimPrefix(e.err.Error(), "x509: ")
}

func (e *certificateError) Unwrap() error { return e.err }

// tlsModes returns the ways in which a server on a network is asked for a session, in
// order: with TLS or without.
func (v values) tlsModes() []bool {
	switch v["sslmode"] {
	case "disable":
		return []bool{false}
	case "allow":
		return []bool{false, true}
	case "prefer":
		return []bool{true, false}
	}
	return []bool{true}
}

// tlsConfig returns the configuration of TLS for a host (PostgreSQL manual, 34.19 "SSL
// Support"). folder is that of the user's certificates, or "".
func (v values) tlsConfig(folder, host string) (*tls.Config, error) {
	// Names and chains are checked below, as libpq does it.
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see VerifyConnection
	var err error
	if config.MinVersion, config.MaxVersion, err = v.tlsVersions(); err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err != nil && v["sslsni"] == "1" {
		config.ServerName = host
	}
	if v["sslnegotiation"] == "direct" {
		config.NextProtos = []string{"postgresql"}
	}
	roots, err := v.roots(folder)
	if err != nil {
		return nil, err
	}
	full := v["sslmode"] == "verify-full"
	if full && host == "" {
		return nil, settingsErrorf("sslmode=verify-full needs the host's name: hostaddr alone does not do")
	}
	if roots != nil {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			err := verifyChain(state.PeerCertificates, roots)
			if err == nil && full {
				err = verifyName(state.PeerCertificates[0], host)
			}
			if err != nil {
				return &certificateError{err}
			}
			return nil
		}
	}
	certificate, err := v.clientCertificate(folder)
	if err != nil {
		return nil, err
	}
	if certificate != nil {
		// Whatever authorities the server names: so does OpenSSL.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate, nil
		}
	}
	return config, nil
}

// tlsVersions returns the oldest and the newest version of TLS, 0 for no limit.
func (v values) tlsVersions() (oldest, newest uint16, err error) {
	versions := map[string]uint16{"": 0, "tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13}
	read := func(name string) uint16 {
		version, ok := versions[strings.ToLower(v[name])]
		if !ok && err == nil {
			err = settingsErrorf("%s is %q, and must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3", name, v[name])
		}
		return version
	}
	oldest, newest = read("ssl_min_protocol_version"), read("ssl_max_protocol_version")
	if err == nil && newest != 0 && oldest > newest {
		err = settingsErrorf("ssl_min_protocol_version is above ssl_max_protocol_version")
	}
	return oldest, newest, err
}

// roots returns the certificates to trust, or nil if the server's is not looked at:
// there is no file, and nothing demands one.
func (v values) roots(folder string) (*x509.CertPool, error) {
	if v["sslrootcert"] == "system" {
		return x509.SystemCertPool()
	}
	path := v["sslrootcert"]
	if path == "" && folder != "" {
		path = filepath.Join(folder, "root.crt")
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strings.HasPrefix(v["sslmode"], "verify"):
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, settingsErrorf("sslmode=%s needs certificates to trust, and there is no file %s; sslrootcert names another", v["sslmode"], path)
	case err != nil:
		return nil, settingsErrorf("the certificates to trust: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, settingsErrorf("the certificates to trust: there is none in %s", path)
	}
	if folder != "" {
		// libpq would go by it.
		if list := filepath.Join(folder, "root.crl"); exists(list) {
			return nil, settingsErrorf("pglock does not check revocation lists, and there is one: %s", list)
		}
	}
	return roots, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func verifyChain(certificates []*x509.Certificate, roots *x509.CertPool) error {
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, certificate := range certificates[1:] {
		options.Intermediates.AddCert(certificate)
	}
	_, err := certificates[0].Verify(options)
	return err
}

// verifyName checks that a certificate is for a host. The common name counts if there
// is no other name of the same kind.
func verifyName(certificate *x509.Certificate, host string) error {
	err := certificate.VerifyHostname(host)
	others := len(certificate.DNSNames)
	if _, notIP := netip.ParseAddr(host); notIP == nil {
		others = len(certificate.IPAddresses)
	}
	if err == nil || others > 0 {
		return err
	}
	name, host := strings.ToLower(certificate.Subject.CommonName), strings.ToLower(host)
	if name == host && name != "" {
		return nil
	}
	_, domain, _ := strings.Cut(host, ".")
	if wildcard, ok := strings.CutPrefix(name, "*."); ok && wildcard == domain {
		return nil
	}
	return err
}

// clientCertificate returns the client's certificate with its key, or nil if there is
// none.
func (v values) clientCertificate(folder string) (*tls.Certificate, error) {
	if v["sslcertmode"] == "disable" {
		return nil, nil
	}
	path, keyPath := v["sslcert"], v["sslkey"]
	if folder != "" {
		if path == "" {
			path = filepath.Join(folder, "postgresql.crt")
		}
		if keyPath == "" {
			keyPath = filepath.Join(folder, "postgresql.key")
		}
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, settingsErrorf("the client's certificate: %v", err)
	}
	info, err := os.Stat(keyPath)
	switch {
	case err != nil:
		return nil, settingsErrorf("the key of the client's certificate: %v", err)
	case !info.Mode().IsRegular():
		return nil, settingsErrorf("the key of the client's certificate, %s, is no plain file", keyPath)
	case keyOpenToOthers(info):
		return nil, settingsErrorf("the key of the client's certificate, %s, can be used by others; chmod 600 %[1]s", keyPath)
	}
	key, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, settingsErrorf("the key of the client's certificate: %v", err)
	}
	if key, err = decrypt(key, v["sslpassword"]); err != nil {
		return nil, settingsErrorf("the key of the client's certificate, %s: %v", keyPath, err)
	}
	certificate, err := tls.X509KeyPair(text, key)
	if err != nil {
		return nil, settingsErrorf("the client's certificate, %s, and its key: %v", path, err)
	}
	return &certificate, nil
}

// decrypt decrypts a key, if it is encrypted in the way that Go can read.
func decrypt(key []byte, password string) ([]byte, error) {
	block, _ := pem.Decode(key)
	switch {
	case block == nil:
		return key, nil // tls says what is wrong
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("pglock cannot read a key that is encrypted as PKCS #8 has it; decrypt it, or write it with openssl rsa -aes256 -traditional")
	case !slices.Contains([]string{block.Headers["Proc-Type"]}, "4,ENCRYPTED"):
		return key, nil
	case password == "":
		return nil, errors.New("it is encrypted; sslpassword says how to read it")
	}
	//lint:ignore SA1019 such keys are weak, but they are there
	plain, err := x509.DecryptPEMBlock(block, []byte(password))
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: plain}), nil
}
