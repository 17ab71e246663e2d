package fetcher

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

const (
	manifestName = "SHA256SUMS"
	// manifestMax is 30 000 lines of common length, far more than anybody
	// keeps beside each other, and small enough to hold in memory.
	manifestMax      = 4 << 20
	manifestLinesMax = 32768
	// nameMax is NAME_MAX of Linux.
	nameMax = 255
)

// manifest is what SHA256SUMS says.
type manifest struct {
	entries []manifestEntry
	until   time.Time // it counts before this; zero: for ever
}

// manifestEntry is one line of SHA256SUMS.
type manifestEntry struct {
	name   string
	digest [32]byte
}

// parseManifest reads SHA256SUMS as sha256sum(1) writes it: 64 hex digits, a
// space, a space or "*", the name. It is strict, since what it lets through
// becomes file names: any other line, a name twice, or a name that could leave
// the directory spoils the whole file. Of several days it may end on, the first
// counts.
func parseManifest(raw []byte) (manifest, error) {
	var m manifest
	if len(bytes.TrimSpace(raw)) == 0 {
		return manifest{}, fault.New(fault.MetaEmpty, errors.New(manifestName+" is empty"), "publish it anew with sha256sum, and sign it")
	}
	if len(raw) > manifestMax {
		return manifest{}, fault.New(fault.MetaTooLarge, fmt.Errorf("%s has %d bytes, at most %d are read", manifestName, len(raw), manifestMax), "remove old releases from it")
	}
	const hint = "publish it anew with sha256sum, run inside the directory"
	seen := map[string]bool{}
	lines := 0
	for line := range bytes.Lines(raw) {
		if lines++; lines > manifestLinesMax {
			return manifest{}, fault.New(fault.MetaTooLarge, fmt.Errorf("%s has more than %d lines", manifestName, manifestLinesMax), "remove old releases from it")
		}
		entry, err := parseManifestLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return manifest{}, fault.New(fault.MetaSyntax, fmt.Errorf("%s:%d: %w", manifestName, lines, err), hint)
		}
		if seen[entry.name] {
			return manifest{}, fault.New(fault.MetaSyntax, fmt.Errorf("%s:%d: %q is listed twice", manifestName, lines, entry.name), hint)
		}
		seen[entry.name] = true
		end, ok, err := expiry(entry.name)
		if err != nil {
			return manifest{}, fault.New(fault.MetaSyntax, fmt.Errorf("%s:%d: %w", manifestName, lines, err), hint)
		}
		if ok && (m.until.IsZero() || end.Before(m.until)) {
			m.until = end
		}
		m.entries = append(m.entries, entry)
	}
	return m, nil
}

func parseManifestLine(line []byte) (manifestEntry, error) {
	const digits, lead = 64, 66
	if len(line) <= lead {
		return manifestEntry{}, fmt.Errorf("%d characters, want 64 hex digits, two characters and a name", len(line))
	}
	var e manifestEntry
	if _, err := hex.Decode(e.digest[:], line[:digits]); err != nil {
		return manifestEntry{}, errors.New("want 64 hex digits first")
	}
	if mark := string(line[digits:lead]); mark != "  " && mark != " *" {
		return manifestEntry{}, fmt.Errorf("%q after the digest, want two spaces or a space and a star", mark)
	}
	e.name = string(line[lead:])
	if err := checkName(e.name); err != nil {
		return manifestEntry{}, err
	}
	return e, nil
}

// checkName accepts what is one file of one directory and cannot harm a log.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is not the name of a file", name)
	case len(name) > nameMax:
		return fmt.Errorf("name %.20q… has %d bytes, at most %d", name, len(name), nameMax)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8", name)
	}
	for _, c := range name {
		switch {
		case c == '/' || c == '\\':
			return fmt.Errorf("name %q holds a %q", name, c)
		case !isPlain(c):
			return fmt.Errorf("name %q holds %U, which does not print", name, c)
		}
	}
	return nil
}

// isPlain keeps out control, format (right-to-left override) and private
// characters, and every space but the common one.
func isPlain(c rune) bool {
	return c == ' ' || unicode.IsPrint(c) && c != utf8.RuneError
}
