package config

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path"
	"strings"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

const (
	keyFileMax = 4 << 10 // a minisign key and its comment have less than 1200 bytes
	caFileMax  = 1 << 20
)

// addKeys accepts minisign public keys and looks into the files that hold
// them: a key that cannot be read is found now, not at the next release. What
// is kept is what was written; the fetcher reads the files again when it
// starts.
func addKeys(s scope, t *upgrader.Target, value string) error {
	entries, err := split(s, value)
	if err != nil {
		return err
	}
	if s.peek {
		t.Source.Keys = append(t.Source.Keys, entries...)
		return nil
	}
	for _, entry := range entries {
		text, what := entry, "this"
		if path.IsAbs(entry) {
			if text, err = s.readTrusted(entry, keyFileMax); err != nil {
				return err
			}
			what = unitfile.Quote(entry)
		}
		key, err := publicKey(text, what)
		if err != nil {
			return err
		}
		if known, ok := s.trusted[key.ID()]; ok && !known.Equal(key) {
			return distrust("remove one of them", "two different keys have the id %016X", key.ID())
		}
		s.trusted[key.ID()] = key
		t.Source.Keys = append(t.Source.Keys, entry)
		if len(t.Source.Keys) > maxItems {
			return refuse("", "more than %d keys", maxItems)
		}
	}
	return nil
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

// publicKey reads a minisign public key, with or without its comment line, and
// says what else it is where people mistake one thing for another.
func publicKey(text, what string) (minisign.PublicKey, error) {
	const hint = "take the second line of the publisher's minisign .pub file, or the absolute name of that file"
	var key minisign.PublicKey
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) == 2 && strings.HasPrefix(lines[0], "untrusted comment:") {
		lines = lines[1:]
	}
	line := strings.TrimSpace(lines[0])
	switch {
	case strings.Contains(text, "-----BEGIN"):
		return key, distrust(hint, "%s is a PEM file, not a minisign public key", what)
	case strings.HasPrefix(line, "ssh-"):
		return key, distrust(hint, "%s is an SSH key, not a minisign public key", what)
	// "Ed" "Sc" "B2" (or no KDF) begin every minisign secret key.
	case strings.HasPrefix(line, "RWRTY0Iy") || strings.HasPrefix(line, "RWQAAEIy"):
		return key, distrust("keep it off this machine, and make a new pair if others could read it", "%s is a secret key", what)
	case len(lines) > 1:
		return key, distrust("write one file per key", "%s has %d lines, want one minisign public key", what, len(lines))
	case line == "":
		return key, distrust(hint, "%s is empty", what)
	case what == "this" && strings.HasSuffix(line, ".pub"):
		return key, distrust("write the file's whole name, beginning with /", "%s is neither a key nor an absolute file name", unitfile.Quote(line))
	}
	if err := key.UnmarshalText([]byte(line)); err != nil {
		return key, distrust(hint, "%s is no minisign public key", what)
	}
	return key, nil
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
