package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// The manifest beside each release, releases/NAME.sha256, says which artifact
// it came from and what it has to look like. sha256sum(1) reads it, and takes
// the lines with # for comments:
//
//	# upgraderd release 1
//	# artifact <digest>
//	# directory bin
//	# executable bin/app
//	<digest>  bin/app
//	# link bin/latest -> app
const (
	manifestHead     = "# upgraderd release 1\n"
	manifestArtifact = "# artifact "
	maxManifest      = 64 << 20 // bytes; some 400,000 files
)

func (s *Store) manifestName(r Release) string { return s.Dir(r) + manifestTail }

// Digest is the SHA-256 of the artifact that release r was made from.
func (s *Store) Digest(r Release) (Digest, error) {
	d, _, err := s.readManifest(r)
	return d, reason.FS("read digest of release "+r.Name, err)
}

func (s *Store) readManifest(r Release) (Digest, []byte, error) {
	data, err := s.readFile(s.manifestName(r), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Digest{}, nil, s.corruptRelease(r, err)
	}
	if err != nil {
		return Digest{}, nil, err
	}
	d, err := manifestDigest(data)
	if err == nil && d.Short() != r.Digest12 {
		err = fmt.Errorf("its manifest is for artifact %s", d)
	}
	if err != nil {
		return Digest{}, nil, s.corruptRelease(r, err)
	}
	return d, data, nil
}

// Verify reads release r back from the disk and compares it with what was
// installed: names, kinds, exec bits, links and the SHA-256 of every file. A
// difference is an error with CodeReleaseCorrupt. It reads through the page
// cache like whoever executes the release.
func (s *Store) Verify(ctx context.Context, r Release) error {
	op := "verify release " + r.Name
	if err := s.present(r); err != nil {
		return reason.FS(op, err)
	}
	d, want, err := s.readManifest(r)
	if err != nil {
		return reason.FS(op, err)
	}
	m := manifest{store: s, ctx: ctx}
	m.begin(d)
	if err := m.walk(s.Dir(r), ""); err != nil {
		return reason.FS(op, err)
	}
	if got := m.text.Bytes(); !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %w", op, s.corruptRelease(r, firstDifference(got, want)))
	}
	return nil
}

// seal makes the tree read-only and durable, all but its top directory's
// mode and name, and returns its manifest.
func (s *Store) seal(ctx context.Context, tree string, d Digest) ([]byte, error) {
	m := manifest{store: s, ctx: ctx, seal: true}
	m.begin(d)
	if err := m.walk(tree, ""); err != nil {
		return nil, err
	}
	if m.text.Len() > maxManifest {
		return nil, &Error{Code: CodeReleaseTree, Err: fmt.Errorf("its manifest has %d bytes, want at most %d", m.text.Len(), maxManifest), Hint: "publish fewer files"}
	}
	return m.text.Bytes(), nil
}

// manifest is the text of one in the making.
type manifest struct {
	store *Store
	ctx   context.Context
	seal  bool // make read-only and fsync on the way
	text  bytes.Buffer
}

func (m *manifest) begin(d Digest) {
	m.text.WriteString(manifestHead)
	m.text.WriteString(manifestArtifact + d.String() + "\n")
}

// walk adds the directory dir, called rel inside the release, in the order of
// names.
func (m *manifest) walk(dir, rel string) error {
	entries, err := m.store.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		if err := m.entry(filepath.Join(dir, e.Name()), path.Join(rel, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (m *manifest) entry(name, rel string) error {
	// A line break in a name could forge a line.
	if strings.ContainsFunc(rel, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return &Error{Code: CodeReleaseTree, Err: fmt.Errorf("%q: control characters and backslashes are not allowed in names", clip(rel)), Hint: "publish it under another name"}
	}
	info, err := m.store.fs.Lstat(name)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		fmt.Fprintf(&m.text, "# directory %s\n", rel)
		if m.seal {
			// Writable until what is in it is done, whatever the umask or
			// an archive made of it.
			if err := m.store.fs.Chmod(name, 0o755); err != nil {
				return err
			}
		}
		if err := m.walk(name, rel); err != nil {
			return err
		}
		if !m.seal {
			return nil
		}
		if err := m.store.fs.Chmod(name, 0o555); err != nil {
			return err
		}
		return m.store.syncDir(name) // its entries and its mode
	case info.Mode().IsRegular():
		return m.file(name, rel, info.Mode())
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := m.store.fs.Readlink(name)
		if err != nil {
			return err
		}
		if strings.ContainsFunc(to, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return &Error{Code: CodeReleaseTree, Err: fmt.Errorf("%q: link has a control character in its target", clip(rel)), Hint: "publish it under another name"}
		}
		fmt.Fprintf(&m.text, "# link %s -> %s\n", rel, to)
		return nil
	}
	return &Error{Code: CodeReleaseTree, Err: fmt.Errorf("%q is %s; a release has only files, directories and symlinks", clip(rel), kind(info.Mode())), Hint: "publish it without"}
}

func (m *manifest) file(name, rel string, mode fs.FileMode) error {
	want := fs.FileMode(0o444)
	if mode&0o100 != 0 {
		want = 0o555
		fmt.Fprintf(&m.text, "# executable %s\n", rel)
	}
	if m.seal {
		// The whole mode, so that setuid and the like go, too.
		if err := m.store.fs.Chmod(name, want); err != nil {
			return err
		}
	}
	f, err := m.store.fs.Open(name)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err == nil && m.seal {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Fprintf(&m.text, "%x  %s\n", h.Sum(nil), rel)
	return nil
}

// manifestDigest reads the digest of the artifact out of a manifest.
func manifestDigest(data []byte) (Digest, error) {
	rest, ok := bytes.CutPrefix(data, []byte(manifestHead+manifestArtifact))
	if !ok {
		return Digest{}, fmt.Errorf("it does not begin with %q", manifestHead)
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return ParseDigest(string(line))
}

func (s *Store) corruptRelease(r Release, err error) error {
	return &Error{Code: CodeReleaseCorrupt, Err: fmt.Errorf("release %s: %w", r, err), Hint: "check the disk; it is fetched again at the next check"}
}

// firstDifference tells the first line in which two manifests differ.
func firstDifference(got, want []byte) error {
	for len(got) > 0 || len(want) > 0 {
		var g, w []byte
		g, got, _ = bytes.Cut(got, []byte("\n"))
		w, want, _ = bytes.Cut(want, []byte("\n"))
		if !bytes.Equal(g, w) {
			return fmt.Errorf("got %q, want %q", clip(string(g)), clip(string(w)))
		}
	}
	return errors.New("got no difference")
}
