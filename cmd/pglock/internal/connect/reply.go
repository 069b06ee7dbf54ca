package connect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
)

// errNoPassword says that the server asks for a password, and there is none. An empty
// one is never sent: servers count failures.
var errNoPassword = errors.New("the server asks for a password, and none was found")

// A reply looks at what the server says to a startup, which decides what is tried next
// (PostgreSQL manual, 55.2.1 "Start-up").
type reply struct {
	hasPassword bool

	greeted       atomic.Bool // the startup was sent, so TLS, if there is any, is up
	authenticated atomic.Bool // the server knows us
}

// watch returns the two ends of a connection, whose begin it looks at.
func (r *reply) watch(in io.Reader, out io.Writer) (io.Reader, io.Writer) {
	return &replyReader{reply: r, in: in}, &replyWriter{reply: r, out: out}
}

type replyWriter struct {
	reply *reply
	out   io.Writer
}

func (w *replyWriter) Write(p []byte) (int, error) {
	n, err := w.out.Write(p)
	if err == nil {
		w.reply.greeted.Store(true)
	}
	return n, err
}

type replyReader struct {
	reply *reply
	in    io.Reader
	seen  []byte // of messages that are not complete
	done  bool
}

func (r *replyReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if r.done {
		return n, err
	}
	r.seen = append(r.seen, p[:n]...)
	if !r.look() {
		return 0, errNoPassword
	}
	return n, err
}

// maxReply is longer than any message that leads to an authentication.
const maxReply = 64 << 10

// look goes through the messages that are complete. It is false if the server wants
// what is not there.
func (r *replyReader) look() bool {
	const header = 5 // a type and a length, which counts itself
	for len(r.seen) >= header {
		kind, length := r.seen[0], binary.BigEndian.Uint32(r.seen[1:])
		if length < 4 || length > maxReply {
			r.done = true
			break
		}
		if len(r.seen) < 1+int(length) {
			return true
		}
		body := r.seen[header : 1+length]
		r.seen = r.seen[1+length:]
		if kind != 'R' || len(body) < 4 {
			continue
		}
		switch binary.BigEndian.Uint32(body) {
		case 0: // it is satisfied
			r.reply.authenticated.Store(true)
			r.done = true
		case 3, 5: // a password in clear, or MD5
			if !r.reply.hasPassword {
				return false
			}
		case 10: // SASL; tokens of OAuth are no passwords
			if !r.reply.hasPassword && bytes.Contains(body, []byte("SCRAM-")) {
				return false
			}
		}
		if r.done {
			break
		}
	}
	if r.done {
		r.seen = nil
	}
	return true
}
