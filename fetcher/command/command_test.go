package command

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script makes a program of /bin/sh.
func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// ways are the ways to run a program: as a child, and by a socket.
func ways(t *testing.T, do func(t *testing.T, by func(program string, stderr io.Writer) Run)) {
	t.Run("child", func(t *testing.T) { do(t, Exec) })
	t.Run("socket", func(t *testing.T) {
		do(t, func(program string, stderr io.Writer) Run { return Dial(serve(t, Exec(program, stderr))) })
	})
}

// serve answers questions over a socket, as a unit does for each connection.
func serve(t *testing.T, run Run) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // short: a socket's name is
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if err := Serve(context.Background(), conn, run); err != nil {
				t.Log(err)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-ended; os.RemoveAll(dir) })
	return path
}

var list = Request{Target: "app", Verb: List}

func TestAnswer(t *testing.T) {
	ways(t, func(t *testing.T, by func(string, io.Writer) Run) {
		for _, c := range []struct {
			name, text, want string
			status           int
		}{
			{"nothing", "", "", 0},
			{"the question", `echo "$UPGRADERD_TARGET $UPGRADERD_VERB $UPGRADERD_FILE"; pwd`, "app list \n/\n", 0},
			{"much", "head -c 300000 /dev/zero", strings.Repeat("\x00", 300000), 0},
			{"no file", "exit 66", "", NoInput},
			{"some, then a failure", "echo some; exit 3", "some\n", 3},
			{"killed", "echo some; kill -9 $$", "some\n", Signaled + 9},
		} {
			out, err := by(script(t, c.text), nil)(context.Background(), list)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(out)
			if string(got) != c.want {
				t.Errorf("%s: got %.40q", c.name, got)
			}
			var exit *ExitError
			if errors.As(err, &exit) != (c.status != 0) || exit != nil && exit.Status != c.status || exit == nil && err != nil {
				t.Errorf("%s: %v, want status %d", c.name, err, c.status)
			}
			out.Close()
		}
	})
}

func TestStandardErrorIsForPeople(t *testing.T) {
	var said bytes.Buffer
	out, err := Exec(script(t, "echo complaint >&2; echo answer"), &said)(context.Background(), list)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(out)
	out.Close()
	if err != nil || string(got) != "answer\n" || said.String() != "complaint\n" {
		t.Errorf("printed %q, %v, and said %q", got, err, &said)
	}
}

// TestEnds has a program that never would: its reader goes away, or does not want
// to wait, and all of its group ends.
func TestEnds(t *testing.T) {
	ways(t, func(t *testing.T, by func(string, io.Writer) Run) {
		for _, how := range []string{"close", "cancel"} {
			pids := filepath.Join(t.TempDir(), "pids")
			program := script(t, "echo $$ > "+pids+"; sleep 1000 & echo $! >> "+pids+"; echo ready; wait")
			ctx, cancel := context.WithCancel(context.Background())
			out, err := by(program, nil)(ctx, list)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			if how == "cancel" {
				cancel()
				if _, err := io.ReadAll(out); err == nil {
					t.Error("a program that was ended gave a whole answer")
				}
			}
			out.Close()
			cancel()
			raw, _ := os.ReadFile(pids)
			for _, pid := range strings.Fields(string(raw)) {
				for i := 0; running(pid); i++ {
					if i > 1000 {
						t.Fatalf("%s: process %s still runs", how, pid)
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
		}
	})
}

// running tells whether a process is there, and is no zombie.
func running(pid string) bool {
	raw, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(raw), ") Z ")
}

func TestRefuses(t *testing.T) {
	good := script(t, "")
	run := Exec(good, nil)
	for _, r := range []Request{
		{}, {Target: "app"}, {Target: "app", Verb: "remove"}, {Target: "app", Verb: Get}, {Target: "app", Verb: List, File: "x"},
		{Target: "a\nb", Verb: List}, {Target: "app", Verb: Get, File: "a\x00b"}, {Target: "app", Verb: Get, File: strings.Repeat("x", 256)},
	} {
		if out, err := run(context.Background(), r); err == nil {
			out.Close()
			t.Errorf("%q was asked", r)
		}
	}
	writable, plain := script(t, ""), script(t, "")
	os.Chmod(writable, 0o722)
	os.Chmod(plain, 0o600)
	for _, program := range []string{writable, plain, filepath.Dir(good), "sh", good + "none"} {
		if out, err := Exec(program, nil)(context.Background(), list); err == nil {
			out.Close()
			t.Errorf("%s was run", program)
		}
	}
}

// TestEnvironment keeps what systemd says to this process from the program.
func TestEnvironment(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/s")
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("OPERATORS", "own")
	out, err := Exec(script(t, `echo "$NOTIFY_SOCKET$LISTEN_FDS$OPERATORS"`), nil)(context.Background(), list)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if got, _ := io.ReadAll(out); string(got) != "own\n" {
		t.Errorf("got %q", got)
	}
}

// TestOtherEnds are sockets at whose other end is not what should be.
func TestOtherEnds(t *testing.T) {
	for _, c := range []struct{ name, says string }{
		{"nothing", ""},
		{"half a length", "\x00\x00"},
		{"half a block", "\x00\x00\x00\x05abc"},
		{"no status", "\x00\x00\x00\x03abc\x00\x00\x00\x00"},
		{"a block of gigabytes", "\xff\xff\xff\xffabc"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				conn.Read(make([]byte, 100))
				io.WriteString(conn, c.says)
				conn.Close()
			}
		}()
		out, err := Dial(path)(context.Background(), list)
		if err == nil {
			_, err = io.ReadAll(out)
			out.Close()
		}
		if err == nil {
			t.Errorf("%s: a whole answer", c.name)
		}
		listener.Close()
	}
	for _, question := range []string{"", "app\nlist", "app\nremove\n\n", strings.Repeat("x", 5000), "app\nlist\n" + strings.Repeat("\n", 1)} {
		ours, theirs := net.Pipe()
		go func() {
			io.WriteString(theirs, question)
			theirs.Close()
		}()
		err := Serve(context.Background(), ours, func(context.Context, Request) (io.ReadCloser, error) { return nil, errors.New("asked") })
		if err == nil {
			t.Errorf("%.20q was answered", question)
		}
		ours.Close()
	}
}
