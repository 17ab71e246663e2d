package units

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// ProgramPath is where units and polkit rule expect the program.
	ProgramPath = "/usr/bin/upgraderd"
	// recordPath lists what was installed, for sha256sum --check: a file that
	// differs from both this and what we ship was changed by somebody else.
	recordPath = "usr/lib/upgraderd/installed.sha256"
	// besideSuffix makes a name that neither systemd nor polkit reads.
	besideSuffix = ".upgraderd-new"
)

// Options of [Install].
type Options struct {
	// Program is the executable to put at [ProgramPath]. Empty, or that very
	// file: the program is left alone.
	Program string
}

// Result says what [Install] did. Paths are as a process in the root sees them.
type Result struct {
	// Written are the files that are new or changed.
	Written []string
	// Kept are files that somebody changed; ours stands beside each, under
	// the same name with ".upgraderd-new" after it.
	Kept []string
	// Next are the commands that are left to do, in order.
	Next []string
}

// Install puts the program and its files below root, "/" for this host. Each
// file is replaced by one rename, and on disk before it gets its name. Doing it
// again changes nothing. Symlinks are followed as long as they stay below root.
func Install(root string, o Options) (Result, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return Result{}, fmt.Errorf("install below %q: %w", root, err)
	}
	defer r.Close()
	i := installer{root: r, programAt: strings.TrimPrefix(ProgramPath, "/"), recordAt: recordPath}
	if err := i.install(o); err != nil {
		return i.result, fmt.Errorf("install below %q: %w", root, err)
	}
	i.result.Next = nextSteps(r, root)
	return i.result, nil
}

type installer struct {
	root *os.Root
	// programAt and recordAt are where these go, in the root.
	programAt, recordAt string

	record map[string]string // path → digest of what was installed
	result Result
}

func (i *installer) install(o Options) error {
	var err error
	if i.record, err = readRecord(i.root, i.recordAt); err != nil {
		return err
	}
	if o.Program != "" {
		if err := i.program(o.Program); err != nil {
			return err
		}
	}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		to := destination(name)
		if strings.HasPrefix(to, manDir) {
			to += ".gz"
			if data, err = compress(data); err != nil {
				return err
			}
		}
		return i.file(to, data)
	})
	if err != nil {
		return err
	}
	return i.saveRecord()
}

// compress makes a man page what hosts have: the same bytes of the same page, since
// no time is in it.
func compress(page []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(page); err != nil {
		return nil, err
	}
	err = z.Close()
	return b.Bytes(), err
}

// file installs one text file, or puts it beside one that was changed.
func (i *installer) file(name string, data []byte) error {
	beside := name + besideSuffix
	present, err := i.root.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case bytes.Equal(present, data):
		i.record[name] = digest(data)
		return i.drop(beside)
	case i.record[name] != digest(present):
		i.result.Kept = append(i.result.Kept, "/"+name)
		return i.write(beside, 0o644, bytes.NewReader(data))
	}
	if err := i.write(name, 0o644, bytes.NewReader(data)); err != nil {
		return err
	}
	i.record[name] = digest(data)
	i.result.Written = append(i.result.Written, "/"+name)
	return i.drop(beside)
}

// program installs the executable, unless it is there already.
func (i *installer) program(source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	name := i.programAt
	same, err := i.sameProgram(f, name)
	if err != nil || same {
		return err
	}
	if err := i.write(name, 0o755, f); err != nil {
		return err
	}
	i.result.Written = append(i.result.Written, "/"+name)
	return nil
}

// sameProgram compares f with the file name, and leaves f at its start.
func (i *installer) sameProgram(f *os.File, name string) (bool, error) {
	present, err := i.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer present.Close()
	ours, theirs := sha256.New(), sha256.New()
	if _, err := io.Copy(ours, f); err != nil {
		return false, err
	}
	if _, err := io.Copy(theirs, present); err != nil {
		return false, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	return bytes.Equal(ours.Sum(nil), theirs.Sum(nil)), nil
}

// write makes name appear whole, and on disk, by one rename.
func (i *installer) write(name string, mode fs.FileMode, data io.Reader) error {
	dir := path.Dir(name)
	if err := i.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	partial := path.Join(dir, "."+path.Base(name)+".partial")
	if err := i.drop(partial); err != nil { // of an install that was cut off
		return err
	}
	f, err := i.root.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, data)
	// The umask does not decide what systemd and polkitd may read.
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = i.root.Rename(partial, name)
	}
	if err != nil {
		return errors.Join(err, i.drop(partial))
	}
	return syncDir(i.root, dir)
}

func (i *installer) drop(name string) error {
	if err := i.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// readRecord reads the digests of the install before, if there was one.
func readRecord(root *os.Root, recordPath string) (map[string]string, error) {
	record := make(map[string]string)
	text, err := root.ReadFile(recordPath)
	if errors.Is(err, fs.ErrNotExist) {
		return record, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok {
			record[strings.TrimPrefix(name, "/")] = sum
		}
	}
	return record, nil
}

// saveRecord writes the record when it says something new.
func (i *installer) saveRecord() error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(i.record)) {
		fmt.Fprintf(&text, "%s  /%s\n", i.record[name], name)
	}
	present, err := i.root.ReadFile(i.recordAt)
	if err == nil && string(present) == text.String() {
		return nil
	}
	return i.write(i.recordAt, 0o644, strings.NewReader(text.String()))
}

// nextSteps are commands for a shell of root's.
func nextSteps(r *os.Root, root string) []string {
	var steps []string
	if _, err := r.Stat("usr/lib/polkit-1/polkitd"); errors.Is(err, fs.ErrNotExist) {
		steps = append(steps, "apt install polkitd   # without it systemd refuses whoever is not root")
	}
	if filepath.Clean(root) != "/" {
		// Users, directories and catalog are made when it boots.
		return append(steps,
			"systemctl --root="+root+" enable upgraderd.service",
			"# then one .upgrade file per service in "+filepath.Join(root, "etc/upgraderd")+", as in "+filepath.Join(root, "usr/share/doc/upgraderd/examples"))
	}
	return append(steps,
		"systemd-sysusers upgraderd.conf",
		"systemd-tmpfiles --create upgraderd.conf",
		"journalctl --update-catalog",
		"systemctl daemon-reload",
		"systemctl reload dbus.service",
		"systemctl enable --now upgraderd.service",
		"# then one .upgrade file per service in /etc/upgraderd, as in /usr/share/doc/upgraderd/examples,",
		"# and after each change there: systemctl reload upgraderd")
}
