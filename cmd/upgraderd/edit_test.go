package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// person sits at a terminal in which a command runs.
type person struct {
	t    *testing.T
	keys *os.File
	cmd  *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer
}

// at starts a command in a terminal of its own, of 80 columns.
func at(t *testing.T, cmd *exec.Cmd) *person {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	keys := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { keys.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, keys: keys, cmd: cmd}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := keys.Read(buf)
			if err != nil { // nobody has the terminal any more
				return
			}
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
		}
	}()
	return p
}

// sees waits until a text stands there, and forgets what stood before its end.
func (p *person) sees(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		_, rest, ok := strings.Cut(p.seen.String(), text)
		if ok {
			p.seen.Reset()
			p.seen.WriteString(rest)
			p.mu.Unlock()
			return
		}
		seen := p.seen.String()
		p.mu.Unlock()
		if time.Now().After(deadline) {
			p.t.Fatalf("the terminal does not say %q: %q", text, seen)
		}
	}
}

func (p *person) types(keys string) {
	p.t.Helper()
	if _, err := p.keys.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

const ctrlC = "\x03"

// An editor has the terminal, also what Ctrl-C says there; what is not in order may be
// edited again; and nothing is left of a draft however it ends.
func TestEditInATerminal(t *testing.T) {
	const (
		bad  = `printf '[Confirm]\nWindowSec=soon\n' >"$1"`
		good = `printf '[Confirm]\nWindowSec=5min\n' >"$1"`
	)
	for _, row := range []struct {
		name, editor string
		does         func(*person)
		want         string // of the drop-in; "" if it is not to be there
	}{
		{"keeps", "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && stty -a | grep -q 'columns 80' && " + good, func(p *person) { p.sees("override.conf\r\n") }, "5min"},
		{"again", "if [ -e $TMPDIR/../once ]; then " + good + "; else >$TMPDIR/../once; " + bad + "; fi", func(p *person) {
			p.sees("WindowSec")
			p.sees("Edit it again? [Y/n] ")
			p.types("\r")
			p.sees("wrote ")
		}, "5min"},
		{"no more", bad, func(p *person) {
			p.sees("Edit it again? [Y/n] ")
			p.types("n\r")
			p.sees("nothing was changed")
		}, ""},
		{"interrupts the question", bad, func(p *person) {
			p.sees("Edit it again? [Y/n] ")
			p.types(ctrlC)
		}, ""},
		{"interrupts what hears it", "trap 'echo heard' INT; echo ready; until read word; do :; done; " + strings.Replace(good, "5min", "'$word'", 1), func(p *person) {
			p.sees("ready")
			p.types(ctrlC)
			p.sees("heard")
			p.types("7min\r")
			p.sees("wrote ")
		}, "7min"},
		{"interrupts what does not", "echo ready; exec sleep 1h", func(p *person) {
			p.sees("ready")
			p.types(ctrlC)
			p.sees("Nothing was changed")
		}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel() // a bus that is not there is waited for
			bin, _ := asUpgraderd(t)
			// Whose files these are counts up to the root directory, and /tmp may be anybody's.
			home, err := os.MkdirTemp("/run", "upgraderd-edit-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(home)
			tmp := filepath.Join(home, "tmp")
			files := filepath.Join(home, ".config/upgraderd")
			for _, dir := range []string{files, tmp} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(files, "app.upgrade"), []byte("[Upgrade]\nUnit=app.service\n[Source]\nPath=/srv\nMatchPattern=app_@v\nVerify=no\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			editor := filepath.Join(bin, "edit")
			if err := os.WriteFile(editor, []byte("#!/bin/sh\n"+row.editor+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "upgraderd"), "--user", "edit", "app")
			cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "XDG_RUNTIME_DIR="+home, "DBUS_SESSION_BUS_ADDRESS=unix:path=/none", "TMPDIR="+tmp, "SYSTEMD_EDITOR="+editor, "TERM=xterm")
			p := at(t, cmd)
			row.does(p)
			_ = cmd.Wait()
			text, err := os.ReadFile(filepath.Join(files, "app.upgrade.d/override.conf"))
			if got := string(text); row.want == "" && err == nil || row.want != "" && got != "[Confirm]\nWindowSec="+row.want+"\n" {
				t.Errorf("the drop-in is %q, %v", got, err)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
