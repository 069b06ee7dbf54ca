// Package httpannotate annotates the statements of HTTP requests, so that anyone who
// inspects their locks sees which request holds them:
//
//	mux := http.NewServeMux()
//	mux.HandleFunc("POST /orders/{id}", updateOrder)
//	http.ListenAndServe(addr, httpannotate.Handler(mux))
//
// A handler passes the request's ctx to its statements, through package pgxannotate
// or sqlannotate.
package httpannotate

import (
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/pglock-go/pglock/inspect"
)

// Handler returns a handler that calls next with annotations of the request in its ctx
// (see [inspect.Annotate]):
//
//   - method: the HTTP method, or _OTHER if it is not one of the standard ones
//   - route: the pattern that the request matches, such as /orders/{id}, if next is an
//     [http.ServeMux] or is called by one
//   - request_id: the header X-Request-ID, or a random one if that is missing or is
//     anything but up to 64 letters, digits and -_.:= characters. The response has it
//     in the same header.
//   - traceparent: the header of W3C Trace Context, if it is valid
//
// The path is not among them, because it may hold what is secret.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(requestIDHeader)
		if !isRequestID(id) {
			id = rand.Text()
		}
		w.Header().Set(requestIDHeader, id)
		ctx := inspect.Annotate(r.Context(), "request_id", id)
		ctx = inspect.Annotate(ctx, "method", method(r))
		if route := route(next, r); route != "" {
			ctx = inspect.Annotate(ctx, "route", route)
		}
		if parents := r.Header.Values("Traceparent"); len(parents) == 1 {
			ctx = inspect.Annotate(ctx, "traceparent", parents[0])
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

const requestIDHeader = "X-Request-ID"

// isRequestID reports whether a client's request ID is harmless in a statement.
func isRequestID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:=", r)
	})
}

// method returns the method of a request, which may be any text.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

// route returns the pattern that a request matches, without its method.
func route(next http.Handler, r *http.Request) string {
	pattern := r.Pattern
	if mux, ok := next.(*http.ServeMux); ok {
		if _, own := mux.Handler(r); own != "" {
			pattern = own
		}
	}
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return strings.TrimSpace(path)
	}
	return pattern
}
