// Package command is how a program of the operator's is asked for releases. Its
// promise: what is read of a program that failed, was killed or went away never ends
// in io.EOF, so a part is not taken for the whole.
//
// A program is run once for each question. The question is its environment, the
// answer its standard output and its exit status; its standard error is for
// people.
//
//	UPGRADERD_TARGET   name of the target that asks
//	UPGRADERD_VERB     list: print a line for each file, SIZE STATE NAME
//	                   get: print the file UPGRADERD_FILE, byte by byte
//	UPGRADERD_FILE     a name that list printed
//
// SIZE is the number of bytes, STATE a word that is another one whenever the bytes
// are others, such as a date, an ETag, or sha256: and 64 hex digits. Either may be
// "-": it is not known.
//
// The exit status is 0 if all was printed. Of sysexits.h, 66 means that there is no
// such file, 69 and 75 that it may be there later, 77 that access is denied, and 78
// that a person has to change something.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Verbs of a Request.
const (
	List = "list"
	Get  = "get"
)

// Exit statuses that have a meaning, from sysexits.h.
const (
	NoInput     = 66
	Unavailable = 69
	TempFail    = 75
	NoPerm      = 77
	Config      = 78
	// Signaled and the signal's number, as a shell says it.
	Signaled = 128
)

// Request is one question.
type Request struct {
	Target, Verb string
	// File is a name for Get, empty for List.
	File string
}

// fieldMax is NAME_MAX of Linux.
const fieldMax = 255

// check refuses what a program could misread.
func (r Request) check() error {
	for _, s := range []string{r.Target, r.Verb, r.File} {
		if len(s) > fieldMax || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%.40q cannot be asked for", s)
		}
	}
	if r.Target == "" || r.Verb != List && r.Verb != Get || (r.Verb == Get) != (r.File != "") {
		return errors.New("not a question")
	}
	return nil
}

// Run asks a question. The caller closes what it gives, which ends the program.
// A read gives io.EOF only after the program has ended with status 0, and an
// *ExitError if it ended otherwise. Reads end when ctx does.
type Run func(ctx context.Context, r Request) (io.ReadCloser, error)

// ExitError tells that a program did not end with status 0.
type ExitError struct {
	// Status is that of the program, or Signaled and the number of a signal.
	Status int
}

// Error reads "exit status 1" or "killed by signal 9".
func (e *ExitError) Error() string {
	if e.Status > Signaled {
		return fmt.Sprintf("killed by signal %d", e.Status-Signaled)
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Check tells whether program is one that root, or who asks, alone can change. It
// does not look at the directories on the way.
func Check(program string) error {
	var st unix.Stat_t
	if err := unix.Stat(program, &st); err != nil {
		return &os.PathError{Op: "stat", Path: program, Err: err}
	}
	switch {
	case !filepath.IsAbs(program):
		return fmt.Errorf("%s is not absolute", program)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is not a regular file", program)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s has mode %04o: others can write it", program, st.Mode&0o7777)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s is owned by user %d, want root", program, st.Uid)
	case st.Mode&0o111 == 0:
		return fmt.Errorf("%s is not executable", program)
	}
	return nil
}

// Exec runs program as a child of this process, in a process group that ends with
// it. Its standard error goes to stderr, which may be nil.
func Exec(program string, stderr io.Writer) Run {
	return func(ctx context.Context, r Request) (io.ReadCloser, error) {
		if err := r.check(); err != nil {
			return nil, err
		}
		if err := Check(program); err != nil {
			return nil, err
		}
		c := &child{}
		ctx, c.cancel = context.WithCancel(ctx)
		c.cmd = exec.CommandContext(ctx, program)
		c.cmd.Dir = "/"
		c.cmd.Env = append(environment(), "UPGRADERD_TARGET="+r.Target, "UPGRADERD_VERB="+r.Verb, "UPGRADERD_FILE="+r.File)
		c.cmd.Stderr = stderr
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.cmd.Cancel = func() error { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }
		c.cmd.WaitDelay = time.Second // for a pipe that a daemonised child holds
		var err error
		if c.out, err = c.cmd.StdoutPipe(); err == nil {
			err = c.cmd.Start()
		}
		if err != nil {
			c.cancel()
			return nil, err
		}
		// What is left of the group would hold the pipe open for ever.
		c.stop = context.AfterFunc(ctx, func() { _ = c.out.Close() })
		return c, nil
	}
}

// environment leaves out what is for this process alone.
func environment() []string {
	var env []string
	for _, entry := range os.Environ() {
		key, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(key, "LISTEN_"), strings.HasPrefix(key, "WATCHDOG_"), strings.HasPrefix(key, "UPGRADERD_"), key == "NOTIFY_SOCKET":
		default:
			env = append(env, entry)
		}
	}
	return env
}

// child is a program that answers.
type child struct {
	cmd    *exec.Cmd
	out    io.ReadCloser
	cancel context.CancelFunc
	stop   func() bool
	once   sync.Once
	err    error // how it ended
}

func (c *child) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		if err = c.wait(); err == nil {
			err = io.EOF
		}
	}
	return n, err
}

func (c *child) wait() error {
	c.once.Do(func() {
		err := c.cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			status := exit.ExitCode()
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				status = Signaled + int(ws.Signal())
			}
			err = &ExitError{status}
		}
		c.err = err
	})
	return c.err
}

// Close ends the program, if it has not ended.
func (c *child) Close() error {
	c.cancel()
	c.stop()
	_ = c.wait()
	return nil
}
