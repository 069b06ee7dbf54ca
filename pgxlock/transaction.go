package pgxlock

import "github.com/jackc/pgx/v5"

// InTransaction reports whether a transaction is open, where that is known: pgx
// is told with every answer of the server's. It saves pglock the asking.
func (c queries) InTransaction() (open, known bool) {
	var conn *pgx.Conn
	switch q := c.q.(type) {
	case *pgx.Conn:
		conn = q
	case pgx.Tx:
		conn = q.Conn()
	}
	if conn == nil {
		return false, false
	}
	return conn.PgConn().TxStatus() != 'I', true
}
