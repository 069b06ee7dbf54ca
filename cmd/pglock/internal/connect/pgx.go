package connect

import (
	"errors"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// parseWithoutService has pgx parse a key=value string. pgx follows PGSERVICE, which
// no string can prevent; it has been followed here.
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

// explain is pgx' reason without the string that it repeats.
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
