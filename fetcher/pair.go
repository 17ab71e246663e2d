package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// The file of Options.Current may be JSON that names two files of the source, a
// program and its configuration:
//
//	{"bin.file": "app.2.0", "cfg.file": "app.2.conf"}
//
// or {"bin": {"file": …}, "cfg": {"file": …}}. They are one release, which is another
// as soon as one of them is: its version is that of the program, "+", and the name of
// the configuration; its digest is that of both digests.

// choice is what the file of Options.Current names.
type choice struct {
	program string // by its file or its version
	config  string // by its file; empty: none
}

// parseChoice reads JSON. Whatever is not as above is refused: a key that nobody
// knows may be one of those, mistyped.
func parseChoice(raw []byte) (choice, error) {
	found := map[string]string{}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := readObject(d, "", found); err != nil {
		return choice{}, err
	}
	if d.More() || d.InputOffset() < int64(len(bytes.TrimRight(raw, " \t\r\n"))) {
		return choice{}, errors.New("something follows the object")
	}
	c := choice{program: strings.TrimPrefix(found["bin.file"], "./"), config: strings.TrimPrefix(found["cfg.file"], "./")}
	for key, name := range map[string]string{"bin.file": c.program, "cfg.file": c.config} {
		if _, given := found[key]; !given && key == "cfg.file" {
			continue
		}
		if err := checkName(name); err != nil {
			return choice{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.program == c.config {
		return choice{}, fmt.Errorf("bin.file and cfg.file are both %q", c.program)
	}
	return c, nil
}

// readObject reads an object of strings, and of objects of strings, under keys
// joined by ".".
func readObject(d *json.Decoder, prefix string, found map[string]string) error {
	if t, err := d.Token(); err != nil {
		return whole(err)
	} else if t != json.Delim('{') {
		return fmt.Errorf("%s: want an object", strings.TrimSuffix(prefix, "."))
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return whole(err)
		}
		key := prefix + t.(string)
		if _, twice := found[key]; twice {
			return fmt.Errorf("%q is there twice", key)
		}
		switch key {
		case "bin", "cfg":
			if err := readObject(d, key+".", found); err != nil {
				return err
			}
		case "bin.file", "cfg.file":
			switch t, err := d.Token(); value := t.(type) {
			case string:
				found[key] = value
			default:
				if err != nil {
					return whole(err)
				}
				return fmt.Errorf("%s: want a string", key)
			}
		default:
			return fmt.Errorf("%q is not known", key)
		}
	}
	_, err := d.Token()
	return whole(err)
}

// whole says of an end that it came too early.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it ends in the middle, so it may be half written")
	}
	return err
}

// joined makes one candidate of a program and its configuration.
func joined(program, config Candidate) Candidate {
	c := Candidate{Version: pairVersion(program.Version, config.Name), Name: program.Name, Config: config.Name, Size: -1}
	if program.HasDigest() && config.HasDigest() {
		c.Digest = pairDigest(program.Digest, config.Digest)
	}
	if program.Size >= 0 && config.Size >= 0 {
		c.Size = program.Size + config.Size
	}
	return c
}

// pairDigest is SHA-256 of both, in words, so that it is that of nothing else.
func pairDigest(program, config [32]byte) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "program %x\nconfig %x\n", program, config))
}

// pairVersion adds the name of the configuration to the program's version. Where a
// version cannot be that long, or hold such a character, a digest has to do.
func pairVersion(program Version, config string) Version {
	if v, err := ParseVersion(string(program) + "+" + config); err == nil {
		return v
	}
	sum := sha256.Sum256([]byte(config))
	short := "+" + hex.EncodeToString(sum[:4])
	return program[:min(len(program), versionMax-len(short))] + Version(short)
}

// withConfig gives the candidate of the program and the configuration of this name.
// manifest is nil where there is none: then nobody promises anything of either.
func (f *Fetcher) withConfig(program Candidate, name string, manifest []byte) (Candidate, Candidate, error) {
	config := Candidate{Name: name, Size: -1}
	if manifest != nil {
		m, err := parseManifest(manifest)
		if err != nil {
			return Candidate{}, Candidate{}, err
		}
		i := slices.IndexFunc(m.entries, func(e manifestEntry) bool { return e.name == name })
		if i < 0 {
			return Candidate{}, Candidate{}, fault.Passing(fault.MetaUnlisted, fmt.Errorf("%s names the configuration %q, which %s does not list", f.o.Current, name, manifestName),
				"list it there, and sign the list anew if it is signed")
		}
		config.Digest = m.entries[i].digest
	}
	return joined(program, config), config, nil
}

// fetchPair brings both files, each by its own digest.
func (f *Fetcher) fetchPair(ctx context.Context, c Candidate, dir string, progress func(done, total int64)) (*Verified, error) {
	f.mu.Lock()
	first := f.listed
	var program Candidate
	var manifest []byte
	if first != nil {
		manifest = first.cache.manifest
		if i := slices.IndexFunc(first.cache.listing.Candidates, func(l Candidate) bool { return l.Name == c.Name }); i >= 0 {
			program = first.cache.listing.Candidates[i]
		}
	}
	f.mu.Unlock()
	both, config, err := f.withConfig(program, c.Config, manifest)
	if err != nil {
		return nil, err
	}
	if both != c {
		return nil, unlisted()
	}
	v, err := f.fetchListed(ctx, first, program, "", dir, progress)
	if err != nil {
		return nil, err
	}
	w, err := f.fetchListed(ctx, first, config, "", dir, nil)
	if err != nil {
		_ = v.Close() // read only
		return nil, err
	}
	v.config, v.received = w.file, v.received+w.received
	v.candidate = joined(v.candidate, w.candidate)
	return v, nil
}

func unlisted() error {
	return fault.New(fault.MetaUnlisted, errors.New("the last check did not list it"), "check again, it may have been withdrawn")
}

// Config is the configuration that came with the artifact, open for reading only; nil
// if none did. It belongs to v as File does.
func (v *Verified) Config() *os.File { return v.config }
