package overseer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// checkLimit bounds the sanity check: a program may do much before Run, and a
// machine may be busy.
const checkLimit = 30 * time.Second

// answerFD is where a binary writes its answer: not to stdout, which is the
// program's own.
const answerFD = 3

// SanityCheck answers the main process that asks whether this binary knows overseer,
// and ends the process then; else it does nothing. Run begins with it. Call it before
// what takes long or must not happen twice.
func SanityCheck() {
	token := os.Getenv(envCheck)
	if token == "" {
		return
	}
	f := os.NewFile(answerFD, "answer")
	if f == nil {
		os.Exit(1)
	}
	if _, err := io.WriteString(f, token); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// checkBinary runs a binary with the arguments of this process, for it to answer
// before it does anything.
func checkBinary(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	token := rand.Text()
	cmd := exec.CommandContext(ctx, path, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(supervisedNoMore(os.Environ()), envCheck+"="+token)
	cmd.ExtraFiles = []*os.File{w} // answerFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("sanity check: %w", err)
	}
	_ = r.SetReadDeadline(time.Now().Add(checkLimit))
	answer, _ := io.ReadAll(io.LimitReader(r, int64(len(token))))
	err = cmd.Wait()
	switch {
	case string(answer) == token:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("sanity check: no answer within %s: is overseer.Run, or SanityCheck, called?", checkLimit)
	case err == nil:
		err = errors.New("it ended before overseer.Run")
	}
	return fmt.Errorf("sanity check: %w: %s", err, said.text())
}

// supervisedNoMore is an environment without what a service manager means for
// this process alone.
func supervisedNoMore(env []string) (out []string) {
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		switch key {
		case "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES":
		default:
			out = append(out, e)
		}
	}
	return out
}

// tail keeps the last of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 1 << 10
	t.b = append(t.b, p...)
	if len(t.b) > most {
		t.b = append([]byte(nil), t.b[len(t.b)-most:]...)
	}
	return len(p), nil
}

func (t *tail) text() string {
	if len(t.b) == 0 {
		return "it printed nothing"
	}
	return fmt.Sprintf("it printed %q", strings.TrimSpace(string(t.b)))
}
