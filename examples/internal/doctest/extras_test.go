//go:build unix

package doctest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/itchyny/gojq"
	"github.com/jackc/pgx/v5"
)

// psql replaces psql, which not every machine has, as far as the guides use it: -c and
// -f, with the connection settings of the environment.
func psql(args []string) error {
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-c", "-f":
			if i+1 == len(args) {
				return errors.New("psql: an option needs a value")
			}
			text := args[i+1]
			if args[i] == "-f" {
				data, err := os.ReadFile(text)
				if err != nil {
					return err
				}
				text = string(data)
			}
			if err := statement(text); err != nil {
				return err
			}
			i++
		case "-X", "-q", "-At":
		default:
			return fmt.Errorf("psql: %s is not supported in this test", args[i])
		}
	}
	return nil
}

// statement runs SQL with the connection settings of the environment.
func statement(text string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, text)
	return err
}

// jq replaces jq -r.
func jq(args []string) error {
	if len(args) > 1 && args[0] == "-r" {
		args = args[1:]
	}
	query, err := gojq.Parse(args[0])
	if err != nil {
		return err
	}
	var input any
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		return err
	}
	results := query.Run(input)
	for {
		value, more := results.Next()
		if !more {
			return nil
		}
		if err, failed := value.(error); failed {
			return err
		}
		if text, ok := value.(string); ok {
			fmt.Println(text)
		} else if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
			return err
		}
	}
}
