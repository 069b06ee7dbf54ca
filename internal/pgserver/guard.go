package pgserver

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed guard.sh
var guardScript string

// A guard is the shell process that is the parent of a server: see guard.sh. It needs no
// goroutine here, so a server does not disturb tests that count goroutines.
type guard struct {
	cmd *exec.Cmd

	mu       sync.Mutex // held during one request and its reply
	requests *os.File   // closing it ends the server
	replies  *os.File
	reader   *bufio.Reader
}

// startGuard starts a guard, which creates folder and removes it at the end.
func startGuard(id identity, env []string, folder string, server ...string) (*guard, error) {
	askEnd, ask, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	replies, replyEnd, err := os.Pipe()
	if err != nil {
		askEnd.Close()
		ask.Close()
		return nil, err
	}
	// The guard outlives every context, because it cleans up. The script is passed in the
	// environment to keep the output of ps readable.
	args := append([]string{"-c", `eval "$PGLOCK_GUARD"`, "pglock-guard", folder}, server...)
	cmd := id.command(context.Background(), append([]string{"PGLOCK_GUARD=" + guardScript}, env...), "/bin/sh", args...)
	cmd.Stdin, cmd.Stdout = askEnd, replyEnd
	err = cmd.Start()
	askEnd.Close()
	replyEnd.Close()
	g := &guard{cmd: cmd, requests: ask, replies: replies, reader: bufio.NewReader(replies)}
	if err != nil {
		ask.Close()
		replies.Close()
		return nil, fmt.Errorf("starting /bin/sh as %s: %w", id.name, err)
	}
	if _, err := g.reply(); err != nil {
		g.end()
		return nil, fmt.Errorf("creating the folder %s as %s: %w", folder, id.name, err)
	}
	return g, nil
}

// reply reads one line from the guard, which replies at once. It does not use the
// caller's ctx, because a reply that is not read would be taken for the next one.
func (g *guard) reply() (string, error) {
	if err := g.replies.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	line, err := g.reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// send sends the guard one line and returns its reply.
func (g *guard) send(line string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.requests == nil {
		return "", errors.New("the server has been stopped")
	}
	if _, err := g.requests.WriteString(line + "\n"); err != nil {
		return "", fmt.Errorf("the guard process of the server is gone: %w", err)
	}
	reply, err := g.reply()
	if err != nil {
		return "", fmt.Errorf("the guard process of the server does not reply: %w", err)
	}
	return reply, nil
}

func (g *guard) start() (pid int, err error) {
	reply, err := g.send("start")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(reply)
}

func (g *guard) running() (bool, error) {
	reply, err := g.send("running")
	return reply == "yes", err
}

// end makes the guard end the server and remove its folder, and waits for it.
func (g *guard) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.requests == nil {
		return nil
	}
	g.requests.Close()
	g.requests = nil
	g.replies.Close()
	return g.cmd.Wait()
}
