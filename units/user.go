package units

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// UserOptions of [InstallUser]. All directories are absolute.
type UserOptions struct {
	// Home of the user, ConfigHome and StateHome as the XDG Base Directory
	// Specification has them. Required.
	Home, ConfigHome, StateHome string
	// Program is the executable to put at ~/.local/bin/upgraderd. One that is at
	// [ProgramPath] is left there.
	Program string
}

// InstallUser puts the program and the units of a user's upgraderd where their own
// service manager finds them, as [Install] does for the system. Nothing outside of
// the directories that the options name is written.
func InstallUser(o UserOptions) (Result, error) {
	for _, dir := range []string{o.Home, o.ConfigHome, o.StateHome} {
		if !filepath.IsAbs(dir) {
			return Result{}, fmt.Errorf("install for a user: directory %q is not absolute", dir)
		}
	}
	unitDir, err := made(o.ConfigHome, "systemd/user")
	if err != nil {
		return Result{}, fmt.Errorf("install for a user: %w", err)
	}
	if _, err := made(o.ConfigHome, "upgraderd"); err != nil {
		return Result{}, fmt.Errorf("install for a user: %w", err)
	}
	shared, err := made(o.Home, ".local/share/upgraderd")
	if err != nil {
		return Result{}, fmt.Errorf("install for a user: %w", err)
	}
	program := ProgramPath
	i := installer{recordAt: strings.TrimPrefix(path.Join(shared, path.Base(recordPath)), "/")}
	if o.Program == ProgramPath {
		o.Program = ""
	} else {
		bin, err := made(o.Home, ".local/bin")
		if err != nil {
			return Result{}, fmt.Errorf("install for a user: %w", err)
		}
		program = path.Join(bin, "upgraderd")
		i.programAt = strings.TrimPrefix(program, "/")
	}
	if i.root, err = os.OpenRoot("/"); err != nil {
		return Result{}, fmt.Errorf("install for a user: %w", err)
	}
	defer i.root.Close()
	// What stands in the files as it is for all users is said of this one.
	words := strings.NewReplacer(
		ProgramPath+" ", escape(program)+" ",
		"%h/.local/state/", escape(o.StateHome)+"/",
	)
	if err := i.installUser(o, words, unitDir); err != nil {
		return i.result, fmt.Errorf("install for a user: %w", err)
	}
	i.result.Next = []string{
		"systemctl --user daemon-reload",
		"systemctl --user enable --now upgraderd.service",
		"loginctl enable-linger   # or your services end when you log out",
		"# then one .upgrade file per service in " + path.Join(o.ConfigHome, "upgraderd") + ",",
		"# and after each change there: systemctl --user reload upgraderd",
	}
	return i.result, nil
}

func (i *installer) installUser(o UserOptions, words *strings.Replacer, dir string) error {
	var err error
	if i.record, err = readRecord(i.root, i.recordAt); err != nil {
		return err
	}
	if o.Program != "" {
		if err := i.program(o.Program); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(files, userUnits)
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := files.ReadFile(path.Join(userUnits, e.Name()))
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Join(dir, e.Name()), "/")
		if err := i.file(name, []byte(words.Replace(string(data)))); err != nil {
			return err
		}
	}
	return i.saveRecord()
}

// made makes a directory, and gives the one that it is: links are the user's, and may
// lead anywhere.
func made(base, dir string) (string, error) {
	name := path.Join(base, dir)
	if err := os.MkdirAll(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return filepath.EvalSymlinks(name)
}

// escape keeps a percent sign from being a specifier of systemd.unit(5).
func escape(name string) string { return strings.ReplaceAll(name, "%", "%%") }
