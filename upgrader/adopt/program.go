package adopt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// programMost is the largest program that is taken as a release.
const programMost = 1 << 30

// program is what a release replaces.
type program struct {
	// file is where it is now, at is its place on the command line: 0, or that of
	// an argument of an interpreter.
	file string
	at   int
	// startable tells that the file can be started by its own name with the
	// arguments after it, by which it means the same.
	startable bool
	// mentions is what in it tells that it takes sockets, "" if nothing.
	mentions string
}

// interpreters run a program that is one of their arguments.
var interpreters = []string{"python", "perl", "ruby", "node", "nodejs", "java", "php", "sh", "bash", "dash", "env", "gunicorn", "uvicorn"}

func interprets(file string) bool {
	base := strings.TrimRight(filepath.Base(file), "0123456789.")
	for _, name := range interpreters {
		if base == name {
			return true
		}
	}
	return false
}

// findProgram decides which file of a command line is the program, unless the
// operator said.
func findProgram(c systemd.Command, wanted string) (program, error) {
	argv := append([]string{c.Path}, c.Args[1:]...)
	p := program{at: -1}
	for i, word := range argv {
		switch {
		case wanted != "" && word != wanted:
		case wanted == "" && i == 0 && interprets(word):
		case filepath.IsAbs(word) && (wanted != "" || i == 0 || isFile(word)):
			p.at = i
		}
		if p.at >= 0 {
			break
		}
	}
	switch {
	case p.at < 0 && wanted != "":
		return p, hint("name a file as it stands in ExecStart=: "+strings.Join(argv, " "), "%s is no word of ExecStart=", wanted)
	case p.at < 0:
		return p, hint("put the program into a file and name that in ExecStart=", "%s runs no file that a release could replace", strings.Join(argv, " "))
	}
	p.file = argv[p.at]
	f, err := openProgram(p.file)
	if err != nil {
		return p, err
	}
	defer f.Close()
	head := make([]byte, 2)
	_, err = io.ReadFull(f, head)
	script := err == nil && string(head) == "#!"
	info, err := f.Stat()
	if err != nil {
		return p, err
	}
	// What stands between an interpreter and its program is lost with its line.
	p.startable = info.Mode()&0o111 != 0 && (p.at == 0 && c.Args[0] == c.Path || p.at == 1 && script)
	p.mentions, err = takesSockets(f)
	return p, err
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

func openProgram(name string) (*os.File, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at the program: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("look at the program: %s is not a regular file", name)
	case info.Size() > programMost:
		return nil, fmt.Errorf("look at the program: %s has %d bytes, at most %d are taken", name, info.Size(), programMost)
	}
	return os.Open(name)
}

// takesSockets looks for the names by which a program asks for the sockets that
// systemd holds: the variable, or the function of a library. That it can does not
// say that it does, as it may want an option for it.
func takesSockets(f io.ReadSeeker) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	names := []string{"LISTEN_FDS", "listen_fds"}
	const overlap = 16
	buf := make([]byte, 1<<20)
	kept := 0
	for {
		n, err := io.ReadFull(f, buf[kept:])
		for _, name := range names {
			if bytes.Contains(buf[:kept+n], []byte(name)) {
				return name, nil
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
	}
}

// hint is an error that says what to do.
func hint(what, format string, args ...any) error {
	return advice.Give(fmt.Errorf(format, args...), "%s", what)
}
