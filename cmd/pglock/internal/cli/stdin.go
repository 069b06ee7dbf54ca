package cli

import (
	"errors"
	"io"
	"os"
	"sync"
)

// maxReplay is how much of a pipe is kept, in bytes, for a command that runs again.
const maxReplay = 64 << 20

// A replay gives the same standard input to each run of a command: it rewinds a file, and
// keeps what it reads from a pipe. A terminal or another device is passed on as it is.
type replay struct {
	source io.Reader
	file   *os.File // to rewind, or nil
	begin  int64    // where the file began
	direct bool     // source is passed on as it is

	reading chan struct{} // holds the turn to read from source

	mu    sync.Mutex // guards the fields below
	kept  []byte
	ended bool // source has ended
	full  bool // more was read than is kept
}

func newReplay(source io.Reader) *replay {
	r := &replay{source: source, reading: make(chan struct{}, 1)}
	f, ok := source.(*os.File)
	if !ok {
		return r
	}
	switch info, err := f.Stat(); {
	case err != nil, info.Mode()&os.ModeCharDevice != 0:
		r.direct = true // such as a closed one
	case info.Mode().IsRegular():
		if at, err := f.Seek(0, io.SeekCurrent); err == nil {
			r.file, r.begin = f, at
		} else {
			r.direct = true
		}
	}
	return r
}

// open returns the standard input for the next run of the command, and a function to call
// after it has started and one to call after it has ended.
func (r *replay) open() (stdin io.Reader, started, ended func(), err error) {
	nothing := func() {}
	switch {
	case r.direct:
		return r.source, nothing, nothing, nil
	case r.file != nil:
		_, err := r.file.Seek(r.begin, io.SeekStart)
		return r.file, nothing, nothing, err
	}
	if r.isFull() {
		return nil, nil, nil, errTooMuchInput
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	go r.copy(to)
	return from, func() { from.Close() }, func() { to.Close() }, nil
}

var errTooMuchInput = errors.New("the command cannot run again: its standard input is a pipe with more than 64 MiB; pass a file")

// isFull reports whether the command cannot run again.
func (r *replay) isFull() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.full
}

// copy writes what is kept, and then what it reads, until one of both ends.
func (r *replay) copy(to *os.File) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for at := 0; ; {
		r.mu.Lock()
		chunk, ended := r.kept[at:], r.ended
		r.mu.Unlock()
		if len(chunk) > 0 {
			n, err := to.Write(chunk)
			if err != nil {
				return // the command has ended, or does not read
			}
			at += n
			continue
		}
		if ended {
			return
		}
		r.reading <- struct{}{}
		r.mu.Lock()
		news := len(r.kept) > at || r.ended // another run has read meanwhile
		r.mu.Unlock()
		if news {
			<-r.reading
			continue
		}
		n, err := r.source.Read(buffer)
		r.mu.Lock()
		if len(r.kept)+n > maxReplay {
			r.full = true
		}
		full := r.full
		if !full {
			r.kept = append(r.kept, buffer[:n]...)
		}
		r.ended = r.ended || err != nil
		r.mu.Unlock()
		<-r.reading
		if full {
			if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
				return
			}
		}
	}
}
