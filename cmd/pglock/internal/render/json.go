package render

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/pglock-go/pglock/internal/termtext"
)

// An Object is a JSON object whose members are ordered.
type Object []member

type member struct {
	name  string
	value any
}

// Add adds a member.
func (o *Object) Add(name string, value any) { *o = append(*o, member{name, value}) }

// WriteObjects writes an array with an object on each line.
func WriteObjects(out io.Writer, objects []Object) error {
	w := bufio.NewWriter(out)
	w.WriteString("[")
	for i, o := range objects {
		if i > 0 {
			w.WriteString(",")
		}
		w.WriteString("\n  ")
		if err := o.write(w, "  "); err != nil {
			return err
		}
	}
	if len(objects) > 0 {
		w.WriteString("\n")
	}
	w.WriteString("]\n")
	return w.Flush()
}

func (o Object) write(w *bufio.Writer, indent string) error {
	w.WriteString("{")
	for i, m := range o {
		if i > 0 {
			w.WriteString(", ")
		}
		fmt.Fprintf(w, "%q: ", m.name)
		switch v := m.value.(type) {
		case Object:
			if err := v.write(w, indent); err != nil {
				return err
			}
		case []Object:
			w.WriteString("[")
			for i, o := range v {
				if i > 0 {
					w.WriteString(",")
				}
				w.WriteString("\n" + indent + "  ")
				if err := o.write(w, indent+"  "); err != nil {
					return err
				}
			}
			w.WriteString("]")
		default:
			text, err := jsonValue(v)
			if err != nil {
				return err
			}
			w.Write(text)
		}
	}
	w.WriteString("}")
	return nil
}

// jsonValue encodes a value as JSON that is safe to show on a terminal: encoding/json
// does not escape control characters from U+007F on.
func jsonValue(value any) ([]byte, error) {
	if d, ok := value.(time.Duration); ok {
		value = d.Seconds()
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return []byte(safeJSON(strings.TrimSuffix(buffer.String(), "\n"))), nil
}

// safeJSON escapes characters that a terminal might interpret. In JSON they occur only
// in strings.
func safeJSON(text string) string {
	var safe strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || termtext.Shows(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	return safe.String()
}

// WriteJSON writes a value as indented JSON.
func WriteJSON(out io.Writer, value any) error {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(out, safeJSON(buffer.String()))
	return err
}
