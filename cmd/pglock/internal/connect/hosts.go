package connect

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// A host is one of the hosts that are tried in turn.
type host struct {
	name string // a name, an address, or the folder of a socket; may be empty if addr is not
	addr string // hostaddr: an address that is not looked up
	port string // as given; empty for the default

	password string // from the password file
	found    bool   // the file has a password, which may be empty
}

const defaultPort = "5432"

// hostsOf returns the hosts that the settings name, at least one.
func hostsOf(v values) ([]host, error) {
	names, addrs, ports := list(v["host"]), list(v["hostaddr"]), list(v["port"])
	if len(addrs) > 0 && len(names) > 0 && len(addrs) != len(names) {
		return nil, settingsErrorf("%s but %d values of hostaddr: there must be as many", count(len(names), "host"), len(addrs))
	}
	hosts := make([]host, max(len(names), len(addrs), 1))
	if len(ports) > 1 && len(ports) != len(hosts) {
		return nil, settingsErrorf("%d ports but %s: give one port for all, or one for each", len(ports), count(len(hosts), "host"))
	}
	for i := range hosts {
		h := &hosts[i]
		if i < len(names) {
			h.name = names[i]
		}
		if i < len(addrs) {
			h.addr = addrs[i]
		}
		if h.name == "" && h.addr == "" {
			h.name = defaultHost()
		}
		switch len(ports) {
		case 0:
		case 1:
			h.port = ports[0]
		default:
			h.port = ports[i]
		}
		if h.port == "" {
			h.port = defaultPort
		}
	}
	if v["load_balance_hosts"] == "random" {
		rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	}
	return hosts, nil
}

// portNumber parses a port. With an error it returns the number that is out of range,
// or 0 if text is not a number. The error does not show text: in a broken URI it may be
// part of a password.
func portNumber(text string) (int, error) {
	n, err := wholeNumber(text)
	if err != nil {
		n = 0
	}
	if n < 1 || n > 65535 {
		err = settingsErrorf("invalid port: a port must be a number from 1 to 65535")
	}
	return n, err
}

// list splits a list with commas. An empty text is an empty list.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// isSocket reports whether a host is the directory of a Unix socket, or an abstract socket.
func isSocket(name string) bool { return strings.HasPrefix(name, "@") || filepath.IsAbs(name) }

// inPasswordFile returns the host's name in the password file.
func (h host) inPasswordFile() string {
	switch {
	case h.name == "":
		return h.addr
	case isSocket(h.name) && h.name == defaultHost():
		return "localhost"
	}
	return h.name
}

// An address is one of a host's network addresses, or its socket.
type address struct {
	network string // "tcp" or "unix"
	target  string // for net.Dial
	label   string // for people
}

// shown returns the host for error texts, without its port.
func (h host) shown() string {
	switch {
	case h.name == "":
		return h.addr
	case isBroken(h.name):
		return "(not shown)"
	}
	return h.name
}

// isBroken reports whether a host may be the rest of a password in a URI.
func isBroken(name string) bool { return strings.Contains(name, "@") && !isSocket(name) }

// label returns the host and port for error texts.
func (h host) label() string {
	if isBroken(h.name) {
		return h.shown()
	}
	return net.JoinHostPort(h.shown(), h.port)
}

// addresses resolves the host. Its port must be a number.
func (h host) addresses(ctx context.Context, shuffle bool) ([]address, error) {
	if h.addr == "" && isSocket(h.name) {
		// Not filepath.Join: what comes after @ need not be a path.
		path := strings.TrimSuffix(h.name, "/") + "/.s.PGSQL." + h.port
		return []address{{network: "unix", target: path, label: path}}, nil
	}
	var ips []string
	if h.addr != "" {
		if _, err := netip.ParseAddr(h.addr); err != nil {
			return nil, settingsErrorf("hostaddr is %q, but must be an IP address; use host for a name", h.addr)
		}
		ips = []string{h.addr}
	} else {
		if isBroken(h.name) {
			return nil, settingsErrorf("a host name cannot contain @; in a URI, write an @ in the password as %%40")
		}
		var err error
		if ips, err = net.DefaultResolver.LookupHost(ctx, h.name); err != nil {
			return nil, err
		}
	}
	if shuffle {
		rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
	}
	var addresses []address
	for _, ip := range ips {
		label := h.label()
		if h.name != "" && h.name != ip {
			label += " (" + ip + ")"
		}
		addresses = append(addresses, address{network: "tcp", target: net.JoinHostPort(ip, h.port), label: label})
	}
	return addresses, nil
}
