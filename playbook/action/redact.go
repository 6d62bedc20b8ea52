package action

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// secretNames are what a variable's name contains whose value is nobody's business.
var secretNames = []string{
	"PASS", "PWD", "SECRET", "TOKEN", "KEY", "CRED", "AUTH", "COOKIE", "SESSION", "PRIVATE", "BEARER", "JWT", "DSN", "SALT", "SIGNATURE",
}

// userinfo is all between the scheme of a URL and the last @ behind it: a password that
// somebody forgot to escape may hold a slash.
var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^\s\x00]+)@`)

// redactEnviron takes what /proc/PID/environ holds and replaces the values that look like
// secrets, by their names, and whoever a URL names as its user. Everything else is kept,
// byte for byte.
func redactEnviron(environ []byte) []byte {
	out := make([]byte, 0, len(environ))
	for {
		v, rest, more := bytes.Cut(environ, []byte{0}) // not all at once: it may be NULs alone
		switch name, value, ok := bytes.Cut(v, []byte("=")); {
		case ok && secretName(string(name)):
			out = append(append(append(out, name...), '='), redacted(len(value))...)
		case bytes.Contains(v, []byte("://")):
			out = append(out, redactURLs(v)...)
		default:
			out = append(out, v...)
		}
		if !more {
			return out
		}
		out, environ = append(out, 0), rest
	}
}

func secretName(name string) bool {
	name = strings.ToUpper(name)
	if name == "PWD" || name == "OLDPWD" { // the working directory
		return false
	}
	for _, s := range secretNames {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}

// redactURLs replaces the user and password of every URL in a text.
func redactURLs(text []byte) []byte {
	return userinfo.ReplaceAllFunc(text, func(url []byte) []byte {
		m := userinfo.FindSubmatch(url)
		return append(append(bytes.Clone(m[1]), redacted(len(m[2]))...), '@')
	})
}

func redacted(n int) []byte { return fmt.Appendf(nil, "[redacted, %d bytes]", n) }
