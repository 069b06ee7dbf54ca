package render

// The colors of views: headers are bold, waiting sessions are yellow, as are warnings.
const (
	Bold   = "\x1b[1m"
	Dim    = "\x1b[2m"
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// Paint returns text in a color, which may be "".
func Paint(color, text string) string {
	if color == "" || text == "" {
		return text
	}
	return color + text + reset
}
