package config

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/signature"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

const caFileMax = 1 << 20

// known are the public keys that a target has named so far.
type known struct{ trusted, revoked []signature.Key }

// keys accepts public keys and looks into the files that hold them: a key that
// cannot be read is found now, not at the next release. What is kept is what was
// written; the fetcher reads the files again when it starts.
func keys(field func(*upgrader.Target) *[]string, found func(*known) *[]signature.Key) setter {
	return func(s scope, t *upgrader.Target, value string) error {
		entries, err := split(s, value)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if !s.peek {
				parsed, err := s.publicKeys(entry)
				if err != nil {
					return err
				}
				*found(s.known) = append(*found(s.known), parsed...)
			}
			*field(t) = append(*field(t), entry)
		}
		if len(*field(t)) > maxItems {
			return refuse("put several into one file", "more than %d keys and files", maxItems)
		}
		return nil
	}
}

// publicKeys reads a key, or the file that it names.
func (s scope) publicKeys(entry string) ([]signature.Key, error) {
	text, what := entry, "this"
	if path.IsAbs(entry) {
		var err error
		if text, err = s.readTrusted(entry, signature.TextMax); err != nil {
			return nil, err
		}
		what = unitfile.Quote(entry)
	}
	keys, err := signature.Parse([]byte(text))
	var no *fetcher.Error
	switch {
	case err == nil:
		return keys, nil
	case what == "this" && strings.Contains(entry, ".") && !strings.ContainsAny(entry, " \t"):
		return nil, distrust("write the file's whole name, beginning with /", "%s is neither a key nor an absolute file name", unitfile.Quote(entry))
	case errors.As(err, &no):
		return nil, distrust(no.Hint, "%s %w", what, no.Err)
	}
	return nil, err
}

// readTrusted reads a file that decides what is trusted.
func (s scope) readTrusted(name string, most int64) (string, error) {
	raw, err := s.tree.read(name, most)
	if err == nil {
		return string(raw), nil
	}
	hint := hintOf(err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = readable
	case errors.Is(err, fs.ErrNotExist):
		hint = "put the file there, or correct its name"
	}
	return "", distrust(hint, "read %s: %w", unitfile.Quote(name), bare(err))
}

func setRoot(s scope, t *upgrader.Target, value string) error {
	v, err := s.expand(value)
	if err != nil {
		return err
	}
	if v, err = absolute(v); err != nil {
		return err
	}
	t.Source.Root = v
	if s.peek {
		return nil
	}
	root, err := s.readTrusted(v, fetcher.RootMax)
	if err != nil {
		return err
	}
	if err := fetcher.CheckRoot([]byte(root)); err != nil {
		return distrust("name a root.json that the repository has in its metadata/", "%s is %w", unitfile.Quote(v), err)
	}
	return nil
}

func setCAFile(s scope, t *upgrader.Target, value string) error {
	v, err := s.expand(value)
	if err != nil {
		return err
	}
	if v, err = absolute(v); err != nil {
		return err
	}
	t.Source.CAFile = v
	if s.peek {
		return nil
	}
	pem, err := s.readTrusted(v, caFileMax)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
		err = distrust("the file must hold -----BEGIN CERTIFICATE-----", "%s holds no certificate", unitfile.Quote(v))
	}
	return err
}
