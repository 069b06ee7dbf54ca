//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Patroni's REST API.

// A member is a node as Patroni sees it.
type member struct {
	Name     string `json:"name"`
	Role     string `json:"role"` // leader, sync_standby or replica
	State    string `json:"state"`
	Timeline int    `json:"timeline"`
}

// members returns the members of the cluster, from the first node that answers.
func (c *Cluster) members(ctx context.Context) ([]member, error) {
	var result struct {
		Members []member `json:"members"`
	}
	var err error
	for _, n := range c.nodes {
		var text string
		if text, err = n.call(ctx, http.MethodGet, "/cluster", nil); err == nil {
			err = json.Unmarshal([]byte(text), &result)
			return result.Members, err
		}
	}
	return nil, err
}

// call sends a request to the Patroni of a node, and returns the text of the reply.
func (n *node) call(ctx context.Context, method, path string, body any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return "", err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address(n.api)+path, bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of %s: %s: %s", path, n.name, response.Status, reply)
	}
	return string(reply), err
}

// leader returns the node that Patroni has as the leader and that is running, or nil.
func (c *Cluster) leader(ctx context.Context) *node {
	members, err := c.members(ctx)
	if err != nil {
		return nil
	}
	for _, m := range members {
		if m.Role == "leader" && m.State == "running" {
			return c.node(m.Name)
		}
	}
	return nil
}

// whole reports whether there is a leader that two standbys follow, and one of them is
// synchronous if that is wanted.
func (c *Cluster) whole(members []member) bool {
	var leaders, standbys, synchronous, timeline int
	for _, m := range members {
		if m.Role == "leader" && m.State == "running" {
			leaders, timeline = 1, m.Timeline
		}
	}
	for _, m := range members {
		if m.Role != "leader" && (m.State == "running" || m.State == "streaming") && m.Timeline == timeline {
			standbys++
			if m.Role == "sync_standby" {
				synchronous++
			}
		}
	}
	return leaders == 1 && standbys == len(c.nodes)-1 && (!c.sync || synchronous == 1)
}

// awaitWhole waits until the cluster is whole.
func (c *Cluster) awaitWhole(ctx context.Context) error {
	return c.await(ctx, "a leader with two standbys", func(ctx context.Context) (bool, error) {
		members, err := c.members(ctx)
		return err == nil && c.whole(members), err
	})
}

// await polls until a state is reached, for at most three minutes.
func (c *Cluster) await(ctx context.Context, what string, reached func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		ok, err := reached(ctx)
		if ok {
			return nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("waiting for %s: %w (%v)%s", what, context.Cause(ctx), err, c.logs())
		}
	}
}

// sleep waits, or returns the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// switchover makes Patroni hand the leadership over to a standby that it chooses.
func (c *Cluster) switchover(ctx context.Context, from *node) error {
	_, err := from.call(ctx, http.MethodPost, "/switchover", map[string]string{"leader": from.name})
	return err
}
