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

// A host is one of those that are tried in turn.
type host struct {
	name string // a name, an address, or the folder of a socket; may be empty if addr is not
	addr string // hostaddr: an address that is not looked up
	port string // as it was given; empty is the default

	password string // from the password file
	found    bool   // there was one, if only an empty one
}

const defaultPort = "5432"

// hostsOf returns the hosts that the settings name. There is always one.
func hostsOf(v values) ([]host, error) {
	names, addrs, ports := list(v["host"]), list(v["hostaddr"]), list(v["port"])
	if len(addrs) > 0 && len(names) > 0 && len(addrs) != len(names) {
		return nil, settingsErrorf("%s and %d values of hostaddr: there must be as many", count(len(names), "host"), len(addrs))
	}
	hosts := make([]host, max(len(names), len(addrs), 1))
	if len(ports) > 1 && len(ports) != len(hosts) {
		return nil, settingsErrorf("%d ports and %s: there must be one port for all, or one for each", len(ports), count(len(hosts), "host"))
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

// portNumber reads a port. Where the error is about a number, that is what it returns,
// and else 0. The text is not shown: in a broken URI it may be part of a password.
func portNumber(text string) (int, error) {
	n, err := wholeNumber(text)
	if err != nil {
		n = 0
	}
	if n < 1 || n > 65535 {
		err = settingsErrorf("invalid port: a port is a number from 1 to 65535")
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

// isSocket reports whether a host is the folder of a Unix socket, or an abstract one.
func isSocket(name string) bool { return strings.HasPrefix(name, "@") || filepath.IsAbs(name) }

// inPasswordFile is how the password file calls a host.
func (h host) inPasswordFile() string {
	switch {
	case h.name == "":
		return h.addr
	case isSocket(h.name) && h.name == defaultHost():
		return "localhost"
	}
	return h.name
}

// An address is what a host's name stands for.
type address struct {
	network string // "tcp" or "unix"
	target  string // for net.Dial
	label   string // for people
}

// shown is how errors call a host without its port.
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

// label is how errors call a host on a network.
func (h host) label() string {
	if isBroken(h.name) {
		return h.shown()
	}
	return net.JoinHostPort(h.shown(), h.port)
}

// addresses looks the host up. The port must be a number.
func (h host) addresses(ctx context.Context, shuffle bool) ([]address, error) {
	if h.addr == "" && isSocket(h.name) {
		// Not filepath.Join: what comes after @ need not be a path.
		path := strings.TrimSuffix(h.name, "/") + "/.s.PGSQL." + h.port
		return []address{{network: "unix", target: path, label: path}}, nil
	}
	var ips []string
	if h.addr != "" {
		if _, err := netip.ParseAddr(h.addr); err != nil {
			return nil, settingsErrorf("hostaddr is an IP address, which %q is not; a name belongs into host", h.addr)
		}
		ips = []string{h.addr}
	} else {
		if isBroken(h.name) {
			return nil, settingsErrorf("a host's name has no @: in a URI, write the @ in a password as %%40")
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
