package connect

import (
	"errors"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// parseWithoutService has pgx parse a key=value string. It unsets PGSERVICE, which this
// package has handled: pgx would use it, whatever the string says.
func parseWithoutService(pairs string) (*pgx.ConnConfig, error) {
	if err := os.Unsetenv("PGSERVICE"); err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(pairs)
	if err != nil {
		return nil, settingsErrorf("%s", explain(err))
	}
	return config, nil
}

// explain returns the reason of a pgx error without the connection string in it.
func explain(err error) string {
	text := err.Error()
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return text
	}
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	return text
}
