// Package redact keeps passwords out of errors. What a driver says of a connection
// string that it cannot read quotes from it, and cannot know which part of it was
// meant to be the password.
package redact

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Hide is err, or, when its text has something of the connection string's password
// in it, an error with the rest of that text. That one wraps nothing, since what is
// wrapped could be asked for its text.
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

	// least is how long a piece of a password must be to be looked for: shorter ones
	// are in every text.
	least = 3
)

// Mask is the text without the connection string, and without what of it may be a
// password or a part of one.
func Mask(text, connString string) string {
	if strings.TrimSpace(connString) == "" {
		return text
	}
	if len(connString) >= least {
		text = strings.ReplaceAll(text, connString, "(the connection string)")
	}
	for _, piece := range pieces(connString) {
		if !strings.Contains(mask, piece) {
			text = strings.ReplaceAll(text, piece, mask)
		}
	}
	return text
}

// Redact is the connection string with xxxxx in place of what is, or may have been
// meant to be, a password or another secret.
func Redact(connString string) string {
	text := connString
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			if user, password, ok := strings.Cut(rest[:at], ":"); ok && password != "" {
				text = scheme + "://" + user + ":" + mask + rest[at:]
			}
		}
	}
	text = value.ReplaceAllString(text, "${1}"+mask)
	for _, piece := range pieces(connString) {
		if !strings.Contains(mask, piece) {
			text = strings.ReplaceAll(text, piece, mask)
		}
	}
	return text
}

var (
	// value is a secret's setting with its value.
	value = regexp.MustCompile(setting.String() + `('(?:[^'\\]|\\.)*'?|[^\s&]+)`)

	// setting is where a secret begins, in a key=value string or after the ? of a URI.
	setting = regexp.MustCompile(`(?i)((?:password|passfile|secret|scram_client_key|scram_server_key)\s*=\s*)`)

	// quoted is a value in quotes, which may not be the end of it.
	quoted = regexp.MustCompile(`^'(?:[^'\\]|\\.)*'`)

	// following and other are a setting where the secret ought to have ended.
	following = regexp.MustCompile(`\s[a-z_]+\s*=`)
	other     = regexp.MustCompile(`^[a-z_]+=`)
)

// pieces are what may be a password in a connection string, which may be broken
// in any way: the longest first.
func pieces(connString string) []string {
	var regions []string
	start := 0
	i := strings.Index(connString, "://")
	if i >= 0 {
		start = i + len("://")
	}
	if at := strings.LastIndex(connString, "@"); at > start {
		// A password with a / or an @ in it is all of it up to the last @.
		if _, password, ok := strings.Cut(connString[start:at], ":"); ok {
			regions = append(regions, password)
		}
	}
	for _, m := range setting.FindAllStringIndex(connString, -1) {
		region := connString[m[1]:]
		if i >= 0 {
			region, _, _ = strings.Cut(region, "&")
		}
		regions = append(regions, region)
		if next := following.FindStringIndex(region); next != nil {
			regions = append(regions, region[:next[0]])
		}
		if value := quoted.FindString(region); value != "" {
			regions = append(regions, value)
		}
	}
	var found []string
	add := func(s string) {
		inner := strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'")
		for _, form := range []string{s, inner, strings.Trim(s, `'"`), strings.ReplaceAll(s, `\`, ""), strings.ReplaceAll(inner, `\`, "")} {
			if len(form) >= least && !slices.Contains(found, form) {
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
				if other.MatchString(word) {
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
