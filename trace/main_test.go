package trace_test

import (
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
