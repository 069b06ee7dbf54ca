package pgserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// template returns a data folder fresh from initdb, for servers to copy.
func (c cache) template(ctx context.Context, bin Binaries, id identity, o Options) (string, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%s", bin.Dir, bin.Version, id.uid, strings.Join(initdbArgs, " ")))
	final := filepath.Join(c.dir, "data", bin.Version+"-"+hex.EncodeToString(sum[:6]))
	if exists(final) {
		return final, nil
	}
	unlock, err := c.lock(ctx, o)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(final) {
		return final, nil
	}
	temp, err := c.temp()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	data := filepath.Join(temp, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return "", err
	}
	if err := id.own(data); err != nil {
		return "", err
	}
	if err := bin.initdb(ctx, id, data); err != nil {
		return "", err
	}
	if err := c.publish(data, final); err != nil {
		return "", fmt.Errorf("pgserver: keeping a fresh data folder: %w", err)
	}
	return final, nil
}

var initdbArgs = []string{
	"--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync",
	"--wal-segsize=1", // smaller segments are quicker to copy
}

// initdb initializes an empty data folder. A fresh machine may have no locale except C.
func (b Binaries) initdb(ctx context.Context, id identity, data string) error {
	var err error
	for _, locale := range []string{"C.UTF-8", "C"} {
		args := append([]string{"--pgdata=" + data, "--locale=" + locale}, initdbArgs...)
		if _, err = id.run(ctx, b.Env, nil, filepath.Join(b.Dir, "initdb"), args...); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil && strings.Contains(err.Error(), "could not look up effective user ID") {
		return fmt.Errorf("pgserver: Postgres runs only as a user in /etc/passwd; run this as another user: %w", err)
	}
	if err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
