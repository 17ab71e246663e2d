package main

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// pager is the program that a person reads in.
type pager struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// startPager starts the first of those that the environment names, or that there
// are, as systemctl does. It is nil where there is none, or none is wanted.
func startPager(out *os.File, ascii bool, env func(string) string) *pager {
	secure := pagerSecure(env)
	for _, argv := range pagers(secure, os.LookupEnv) {
		if len(argv) == 0 || argv[0] == "cat" {
			return nil
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		cmd.Env = append(os.Environ(), pagerEnv(ascii, secure, env)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil
		}
		if err := cmd.Start(); err == nil {
			return &pager{cmd, in}
		}
		in.Close()
	}
	return nil
}

// pagers are the command lines to try. The empty one wants none.
func pagers(secure bool, lookup func(string) (string, bool)) [][]string {
	given, ok := lookup("SYSTEMD_PAGER")
	if !ok {
		given, ok = lookup("PAGER")
	}
	fields := strings.Fields(given)
	switch {
	case ok && (len(fields) == 0 || fields[0] == "cat"):
		return [][]string{nil}
	case secure: // which others may obey, and less does
		return [][]string{{"less"}}
	case ok:
		return [][]string{fields, {"pager"}, {"less"}, {"more"}}
	}
	return [][]string{{"pager"}, {"less"}, {"more"}}
}

// pagerSecure tells whether the pager shall start nothing: who may run one command
// as another user shall not get a shell of theirs. See SYSTEMD_PAGERSECURE in
// systemctl(1).
func pagerSecure(env func(string) string) bool {
	if value := env("SYSTEMD_PAGERSECURE"); value != "" {
		return !slices.Contains([]string{"0", "no", "n", "false", "f", "off"}, strings.ToLower(value))
	}
	return os.Geteuid() != os.Getuid() || env("SUDO_UID") != "" || env("PKEXEC_UID") != "" || env("DOAS_USER") != ""
}

func pagerEnv(ascii, secure bool, env func(string) string) []string {
	less, charset := env("SYSTEMD_LESS"), env("SYSTEMD_LESSCHARSET")
	if less == "" {
		less = "FRSXMK"
	}
	if charset == "" && !ascii {
		charset = "utf-8"
	}
	set := []string{"LESS=" + less}
	if charset != "" {
		set = append(set, "LESSCHARSET="+charset)
	}
	if secure {
		set = append(set, "LESSSECURE=1")
	}
	return set
}

func (p *pager) Write(text []byte) (int, error) { return p.in.Write(text) }

// close waits until the person has read. Ctrl-C is the pager's, then.
func (p *pager) close() error {
	err := p.in.Close()
	signal.Ignore(syscall.SIGINT)
	defer signal.Reset(syscall.SIGINT)
	_ = p.cmd.Wait() // how it ends is between it and the person
	return err
}
