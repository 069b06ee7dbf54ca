// Package example tests the example programs for the ORMs, which all do the same.
package example

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pglocktest"
)

// A Program is one of the examples.
type Program struct {
	Run        func(ctx context.Context, dsn string, out io.Writer) error // also creates the table
	AddInvoice func(ctx context.Context, amount int64) (number int64, err error)
	CloseMonth func(ctx context.Context) (total int64, err error)
	Remind     func(ctx context.Context) (invoices int, err error)
}

// Test tests a program on an empty database.
func Test(t *testing.T, dsn string, source driver.Source, p Program) {
	var out bytes.Buffer
	if err := p.Run(t.Context(), dsn, &out); err != nil {
		t.Fatal(err)
	}
	const want = "invoice 1\ninvoice 2\nreminders 2\nclosed 30\n"
	if out.String() != want {
		t.Fatalf("the program wrote\n%swant\n%s", out.String(), want)
	}
	t.Run("AddInvoice", func(t *testing.T) { addInvoice(t, source, p) })
	t.Run("CloseMonth", func(t *testing.T) { closeMonth(t, source, p) })
	t.Run("Remind", func(t *testing.T) { remind(t, source, p) })
}

func addInvoice(t *testing.T, source driver.Source, p Program) {
	numbers := pglocktest.Key(t, source, pglock.Name("invoice numbers"))
	numbers.Hold()
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		got []int64
	)
	const n = 10
	for range n {
		wg.Go(func() {
			number, err := p.AddInvoice(t.Context(), 1)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, number)
		})
	}
	numbers.AwaitWaiters(n)
	numbers.Release()
	wg.Wait()
	slices.Sort(got)
	for i, number := range got {
		if number != int64(i)+3 {
			t.Fatalf("the numbers after 1 and 2 are %v", got)
		}
	}
	numbers.WantFree()
}

func closeMonth(t *testing.T, source driver.Source, p Program) {
	// Another session writes.
	invoices := pglocktest.Table(t, source, "invoices", pglock.RowExclusive)
	invoices.Hold()
	result := make(chan error, 1)
	var total int64
	go func() {
		var err error
		total, err = p.CloseMonth(t.Context())
		result <- err
	}()
	invoices.AwaitWaiters(1)
	invoices.Release()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if total != 10 {
		t.Errorf("closed %d, want 10", total)
	}
	invoices.WantFree()
}

func remind(t *testing.T, source driver.Source, p Program) {
	if _, err := p.AddInvoice(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	reminders := pglocktest.Key(t, source, pglock.Name("reminders"))
	reminders.Hold()
	if n, err := p.Remind(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v, although another machine holds the lock", n, err)
	}
	reminders.Release()
	if n, err := p.Remind(t.Context()); n != 1 || err != nil {
		t.Errorf("%d, %v, want 1", n, err)
	}
	reminders.WantFree()
}
