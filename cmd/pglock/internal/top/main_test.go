package top

import (
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // the views show local times
	pgtest.Main(m)
}
