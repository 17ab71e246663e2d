package upgrader

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/command"
)

// TestServeSource has the target's own file say which command is run.
func TestServeSource(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "source")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho $UPGRADERD_TARGET\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"app": "exec:" + program, "web": "https://example.com/", "none": "exec:" + dir + "/none"}
	find := func(name string) (*Target, error) {
		path, ok := paths[name]
		if !ok {
			return nil, errors.New("no such target")
		}
		return &Target{Name: name, Source: fetcher.Options{Path: path}}, nil
	}
	for _, c := range []struct{ target, want, why string }{
		{"app", "app\n", ""},
		{"web", "", "no command"},
		{"none", "", "no such file"},
		{"other", "", "no such target"},
	} {
		listener, err := net.Listen("unix", filepath.Join(dir, c.target+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				err = ServeSource(context.Background(), conn, find, io.Discard)
				conn.Close()
			}
			served <- err
		}()
		out, err := command.Dial(listener.Addr().String())(context.Background(), command.Request{Target: c.target, Verb: command.List})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out)
		out.Close()
		if string(got) != c.want || (err == nil) != (c.why == "") {
			t.Errorf("%s: got %q, %v", c.target, got, err)
		}
		var exit *command.ExitError
		if c.why != "" && (!errors.As(err, &exit) || exit.Status != command.Config) {
			t.Errorf("%s: %v, want status %d", c.target, err, command.Config)
		}
		if err := <-served; (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: served with %v, want %q", c.target, err, c.why)
		}
		listener.Close()
	}
}
