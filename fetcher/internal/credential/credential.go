// Package credential reads what lets this host in: a token, or a user and a
// password, each the one line of a file, and a certificate with its key. Its
// promise: a secret is in no error, log line or text; and a file is read each time
// that it is used, so one that was replaced counts at the next request.
package credential

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Max bounds a file of one secret, in bytes. It is far more than any token has,
// and little enough for a header.
const Max = 16 << 10

// Secret is text that prints as ***, whoever prints it.
type Secret string

const hidden = "***"

// String hides the secret, and so do the other methods.
func (Secret) String() string { return hidden }

// Format is for every verb of package fmt.
func (Secret) Format(s fmt.State, _ rune) { fmt.Fprint(s, hidden) }

// LogValue is for log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText is for JSON and its like.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Reveal gives the secret itself, for whom it was meant.
func (s Secret) Reveal() string { return string(s) }

// Access is what lets a request in. The zero value is nothing.
type Access struct {
	// TokenFile is the absolute name of a file with a token.
	TokenFile string
	// LoginFile is the absolute name of a file with user:password.
	LoginFile string
}

// Given tells whether there is anything to show.
func (a Access) Given() bool { return a != Access{} }

// Check tells whether a request could be let in: whether the file can be read and
// holds what it should.
func (a Access) Check() error {
	if a.TokenFile != "" && a.LoginFile != "" {
		return fault.New(fault.ConfigSource, errors.New("TokenFile= and LoginFile= are both given, and a request has room for one"), "remove one of them")
	}
	return a.Authorize(http.Header{})
}

// Authorize sets the Authorization of a request: Bearer (RFC 6750) for a token,
// Basic (RFC 7617) for a login, nothing where neither is given.
func (a Access) Authorize(h http.Header) error {
	switch {
	case a.TokenFile != "":
		token, err := a.Token()
		if err != nil {
			return err
		}
		h.Set("Authorization", "Bearer "+token.Reveal())
	case a.LoginFile != "":
		user, password, err := a.Login()
		if err != nil {
			return err
		}
		h.Set("Authorization", Basic(user, password))
	}
	return nil
}

// Basic is the value of an Authorization header.
func Basic(user string, password Secret) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password.Reveal()))
}

// Token reads TokenFile.
func (a Access) Token() (Secret, error) {
	var token Secret
	err := readFile("TokenFile=", a.TokenFile, func(raw []byte) (err error) {
		token, err = ParseToken(raw)
		return err
	})
	return token, err
}

// Login reads LoginFile.
func (a Access) Login() (user string, password Secret, err error) {
	err = readFile("LoginFile=", a.LoginFile, func(raw []byte) (err error) {
		user, password, err = ParseLogin(raw)
		return err
	})
	return user, password, err
}

// ParseToken reads the one line of a file. Its error, as that of ParseLogin, says
// what the file holds instead, and quotes none of it.
func ParseToken(raw []byte) (Secret, error) {
	line, err := oneLine(raw)
	if err == nil && bytes.IndexByte(line, ' ') >= 0 {
		err = errors.New("holds a line with a space in it, and a token has none")
	}
	if err != nil {
		return "", err
	}
	return Secret(line), nil
}

// ParseLogin reads the one line of a file, split at its first colon.
func ParseLogin(raw []byte) (user string, password Secret, err error) {
	line, err := oneLine(raw)
	if err != nil {
		return "", "", err
	}
	name, rest, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 {
		return "", "", errors.New("holds no line of the form user:password")
	}
	return string(name), Secret(rest), nil
}

// oneLine refuses what would not stay in its header, or was not meant to.
func oneLine(raw []byte) ([]byte, error) {
	if len(raw) > Max {
		return nil, fmt.Errorf("has more than %d bytes", Max)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, errors.New("is empty")
	case bytes.IndexByte(line, '\n') >= 0:
		return nil, errors.New("has more than one line")
	case bytes.ContainsFunc(line, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return nil, errors.New("holds a control character")
	}
	return line, nil
}

// readFile has parse read the file that a key names.
func readFile(key, name string, parse func(raw []byte) error) error {
	raw, err := Read(name)
	if err == nil {
		if err = parse(raw); err != nil {
			err = fmt.Errorf("%s %w", name, err)
		}
	}
	if err != nil {
		return fault.New(fault.ConfigSource, fmt.Errorf("%s %w", key, err), "it takes the absolute name of a file of one line that the daemon can read; see docs/sources.md")
	}
	return nil
}

// Read gives a regular file, and one byte more than Max of a larger one.
func Read(name string) ([]byte, error) { return read(name, Max) }

// read gives up to most bytes, and one more where there are more.
func read(name string, most int64) ([]byte, error) {
	// O_NONBLOCK: a FIFO must not hold up a request.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return io.ReadAll(io.LimitReader(f, most+1))
}
