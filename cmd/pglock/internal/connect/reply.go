package connect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
)

// errNoPassword is returned if the server requires a password and there is none. An
// empty password is never sent, because servers count failures.
var errNoPassword = errors.New("the server requires a password, and none was found")

// A reply observes how the server replies to a startup message, which decides what is
// tried next (PostgreSQL manual, 55.2.1 "Start-up").
type reply struct {
	hasPassword bool

	greeted       atomic.Bool // the startup message was sent, so TLS, if used, is up
	authenticated atomic.Bool // the server accepted the user
}

// watch wraps the two directions of a connection to observe its startup.
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
	seen  []byte // an incomplete message
	done  bool
}

func (r *replyReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if r.done {
		return n, err
	}
	r.seen = append(r.seen, p[:n]...)
	if !r.parse() {
		return 0, errNoPassword
	}
	return n, err
}

// maxReply is longer than any message of an authentication.
const maxReply = 64 << 10

// parse parses the messages that are complete. It returns false if the server requires a
// password and there is none.
func (r *replyReader) parse() bool {
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
		case 0: // AuthenticationOk
			r.reply.authenticated.Store(true)
			r.done = true
		case 3, 5: // a clear-text or MD5 password
			if !r.reply.hasPassword {
				return false
			}
		case 10: // SASL; OAuth tokens are not passwords
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
