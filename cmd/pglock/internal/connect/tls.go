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

// A certificateError reports why the server's certificate is not accepted.
type certificateError struct{ err error }

func (e *certificateError) Error() string {
	return "the server's certificate is not accepted: " + strings.TrimPrefix(e.err.Error(), "x509: ")
}

func (e *certificateError) Unwrap() error { return e.err }

// tlsModes returns the order in which a TCP connection is tried with TLS (true) and
// without.
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

// tlsConfig returns the TLS configuration for a host (PostgreSQL manual, 34.19 "SSL
// Support"). folder is the directory of the user's certificates, or "".
func (v values) tlsConfig(folder, host string) (*tls.Config, error) {
	// VerifyConnection below checks names and chains as libpq does.
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
		return nil, settingsErrorf("sslmode=verify-full needs host, and not only hostaddr")
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
		// Like OpenSSL, ignore which authorities the server names.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate, nil
		}
	}
	return config, nil
}

// tlsVersions returns the oldest and the newest TLS version, or 0 for no limit.
func (v values) tlsVersions() (oldest, newest uint16, err error) {
	versions := map[string]uint16{"": 0, "tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13}
	read := func(name string) uint16 {
		version, ok := versions[strings.ToLower(v[name])]
		if !ok && err == nil {
			err = settingsErrorf("%s is %q, but must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3", name, v[name])
		}
		return version
	}
	oldest, newest = read("ssl_min_protocol_version"), read("ssl_max_protocol_version")
	if err == nil && newest != 0 && oldest > newest {
		err = settingsErrorf("ssl_min_protocol_version is above ssl_max_protocol_version")
	}
	return oldest, newest, err
}

// roots returns the certificates to trust. It returns nil if the server's certificate is
// not checked, because there is no file and sslmode does not require one.
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
		return nil, settingsErrorf("sslmode=%s needs root certificates, but %s does not exist; set sslrootcert", v["sslmode"], path)
	case err != nil:
		return nil, settingsErrorf("root certificates: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, settingsErrorf("root certificates: %s contains none", path)
	}
	if folder != "" {
		// libpq would use it.
		if list := filepath.Join(folder, "root.crl"); exists(list) {
			return nil, settingsErrorf("pglock does not check certificate revocation lists, but %s exists", list)
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

// verifyName checks that a certificate is for a host. The common name counts if the
// certificate has no other name of the same kind.
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

// clientCertificate returns the client's certificate and key, or nil if there is none.
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
		return nil, settingsErrorf("client certificate: %v", err)
	}
	info, err := os.Stat(keyPath)
	switch {
	case err != nil:
		return nil, settingsErrorf("client certificate key: %v", err)
	case !info.Mode().IsRegular():
		return nil, settingsErrorf("client certificate key %s: not a regular file", keyPath)
	case keyOpenToOthers(info):
		return nil, settingsErrorf("client certificate key %s: others can read or write it; chmod 600 %[1]s", keyPath)
	}
	key, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, settingsErrorf("client certificate key: %v", err)
	}
	if key, err = decrypt(key, v["sslpassword"]); err != nil {
		return nil, settingsErrorf("client certificate key %s: %v", keyPath, err)
	}
	certificate, err := tls.X509KeyPair(text, key)
	if err != nil {
		return nil, settingsErrorf("client certificate %s and its key: %v", path, err)
	}
	return &certificate, nil
}

// decrypt decrypts a key. It returns one that is not encrypted as it is.
func decrypt(key []byte, password string) ([]byte, error) {
	block, _ := pem.Decode(key)
	switch {
	case block == nil:
		return key, nil // crypto/tls reports the error
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("pglock cannot read keys with PKCS #8 encryption; decrypt it, or convert it with openssl rsa -aes256 -traditional")
	case !slices.Contains([]string{block.Headers["Proc-Type"]}, "4,ENCRYPTED"):
		return key, nil
	case password == "":
		return nil, errors.New("it is encrypted; set sslpassword")
	}
	//lint:ignore SA1019 this encryption is weak, but in use
	plain, err := x509.DecryptPEMBlock(block, []byte(password))
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: plain}), nil
}
