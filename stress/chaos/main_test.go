package chaos_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/stress/chaos"
)

func TestMain(m *testing.M) {
	if worker, err := chaos.WorkerMain(); worker {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}
