package httpannotate_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/httpannotate"
)

const (
	trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01"
)

func TestHandler(t *testing.T) {
	var comment string
	record := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		comment = inspect.Comment(r.Context(), "SELECT 1")
	})
	inner := http.NewServeMux()
	inner.Handle("/api/orders/{id}", record)
	mux := http.NewServeMux()
	mux.Handle("GET /orders/{id}", record)
	mux.Handle("POST  example.com/{$}", record)
	mux.Handle("/", record)
	mux.Handle("/api/", httpannotate.Handler(inner))
	mux.Handle("/inside/", httpannotate.Handler(record))
	for _, test := range []struct {
		name, method, target string
		header               http.Header
		want                 string // ID is the header of the response
	}{
		{"a route", "GET", "/orders/7?secret=x", nil, "/*method='GET',request_id='ID',route='%2Forders%2F%7Bid%7D'*/"},
		{"a host", "POST", "http://example.com/", nil, "/*method='POST',request_id='ID',route='example.com%2F%7B%24%7D'*/"},
		{"another", "GET", "/else", nil, "/*method='GET',request_id='ID',route='%2F'*/"},
		{"an inner mux", "GET", "/api/orders/7", nil, "/*method='GET',request_id='ID',route='%2Fapi%2Forders%2F%7Bid%7D'*/"},
		{"inside a mux", "GET", "/inside/7", nil, "/*method='GET',request_id='ID',route='%2Finside%2F'*/"},
		{"a strange method", "DROP", "/else", nil, "/*method='_OTHER',request_id='ID',route='%2F'*/"},
		{"an ID", "GET", "/else", http.Header{"X-Request-Id": {"abc-1:2=3"}}, "/*method='GET',request_id='abc-1%3A2%3D3',route='%2F'*/"},
		{"a trace", "GET", "/else", http.Header{"Traceparent": {trace}}, "/*method='GET',request_id='ID',route='%2F',traceparent='" + trace + "'*/"},
		{"a wrong trace", "GET", "/else", http.Header{"Traceparent": {trace + "x"}}, "/*method='GET',request_id='ID',route='%2F'*/"},
		{"two traces", "GET", "/else", http.Header{"Traceparent": {trace, other}}, "/*method='GET',request_id='ID',route='%2F'*/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			comment = ""
			r := httptest.NewRequest(test.method, test.target, nil)
			for key, values := range test.header {
				r.Header[key] = values
			}
			w := httptest.NewRecorder()
			httpannotate.Handler(mux).ServeHTTP(w, r)
			id := w.Header().Get("X-Request-ID")
			if id == "" {
				t.Error("the response has no request ID")
			}
			if want := "SELECT 1 " + strings.ReplaceAll(test.want, "ID", id); comment != want {
				t.Errorf("%s\nwant %s", comment, want)
			}
		})
	}
	for _, id := range []string{"", "a b", "a*/", "é", strings.Repeat("x", 65), "a,b", "\x00"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Request-Id"] = []string{id}
		w := httptest.NewRecorder()
		httpannotate.Handler(mux).ServeHTTP(w, r)
		if got := w.Header().Get("X-Request-ID"); got == id || len(got) < 20 || !strings.Contains(comment, "request_id='"+got+"'") {
			t.Errorf("%q: %q, %s", id, got, comment)
		}
	}
}
