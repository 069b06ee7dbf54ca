// Package redact keeps passwords out of errors. A driver that cannot parse a connection
// string quotes from it, and cannot know which part was meant as the password.
package redact

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// Hide returns err, or, if its text contains part of the connection string's password, an
// error with the masked text. That error does not wrap err, whose text could be read
// otherwise.
func Hide(err error, connString string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if masked := Mask(text, connString); masked != text {
		return errors.New(masked)
	}
	return err
}

const (
	mask = "xxxxx"

	// minPiece is the minimum length of a piece of a password to mask. Shorter ones are in
	// every text.
	minPiece = 3
)

// Mask replaces the connection string in text, and anything in text that may be part of
// its password.
func Mask(text, connString string) string {
	if strings.TrimSpace(connString) == "" {
		return text
	}
	if len(connString) >= minPiece {
		text = strings.ReplaceAll(text, connString, "(the connection string)")
	}
	for _, piece := range pieces(connString) {
		if !strings.Contains(mask, piece) {
			text = strings.ReplaceAll(text, piece, mask)
		}
	}
	return text
}

// Redact returns the connection string with xxxxx in place of everything that is or may
// be a password or another secret.
func Redact(connString string) string {
	text := connString
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			if user, password, ok := strings.Cut(rest[:at], ":"); ok && password != "" {
				text = scheme + "://" + user + ":" + mask + rest[at:]
			}
		}
	}
	text = secretSetting().ReplaceAllString(text, "${1}"+mask)
	for _, piece := range pieces(connString) {
		if !strings.Contains(mask, piece) {
			text = strings.ReplaceAll(text, piece, mask)
		}
	}
	return text
}

// secretStartText is the expression of secretStart.
const secretStartText = `(?i)((?:password|passfile|secret|scram_client_key|scram_server_key)\s*=\s*)`

var (
	// secretSetting matches the setting of a secret and its value.
	secretSetting = lazyregexp.New(secretStartText + `('(?:[^'\\]|\\.)*'?|[^\s&]+)`)

	// secretStart matches up to the start of a secret, in key=value form or in the query
	// of a URI.
	secretStart = lazyregexp.New(secretStartText)

	// quoted matches a quoted value. The secret may continue after it.
	quoted = lazyregexp.New(`^'(?:[^'\\]|\\.)*'`)

	// nextSetting and otherSetting match a setting that follows the secret.
	nextSetting  = lazyregexp.New(`\s[a-z_]+\s*=`)
	otherSetting = lazyregexp.New(`^[a-z_]+=`)
)

// pieces returns all strings that may be a password in a connection string, or a part of
// one, the longest first. The connection string may be malformed in any way.
func pieces(connString string) []string {
	var regions []string
	start := 0
	i := strings.Index(connString, "://")
	if i >= 0 {
		start = i + len("://")
	}
	if at := strings.LastIndex(connString, "@"); at > start {
		// A password that contains / or @ extends to the last @.
		if _, password, ok := strings.Cut(connString[start:at], ":"); ok {
			regions = append(regions, password)
		}
	}
	for _, m := range secretStart().FindAllStringIndex(connString, -1) {
		region := connString[m[1]:]
		if i >= 0 {
			region, _, _ = strings.Cut(region, "&")
		}
		regions = append(regions, region)
		if next := nextSetting().FindStringIndex(region); next != nil {
			regions = append(regions, region[:next[0]])
		}
		if value := quoted().FindString(region); value != "" {
			regions = append(regions, value)
		}
	}
	var found []string
	add := func(s string) {
		inner := strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'")
		for _, form := range []string{s, inner, strings.Trim(s, `'"`), strings.ReplaceAll(s, `\`, ""), strings.ReplaceAll(inner, `\`, "")} {
			if len(form) >= minPiece && !slices.Contains(found, form) {
				found = append(found, form)
			}
		}
	}
	for _, region := range regions {
		forms := []string{region}
		for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
			if form, err := unescape(region); err == nil && form != region {
				forms = append(forms, form)
			}
		}
		for _, form := range forms {
			add(form)
			for word := range strings.FieldsSeq(form) {
				if otherSetting().MatchString(word) {
					continue
				}
				add(word)
				for _, part := range strings.FieldsFunc(word, func(r rune) bool { return strings.ContainsRune(`:/@?#&'"%[]`, r) }) {
					add(part)
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return found
}
