package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestFind(t *testing.T) {
	s := newStore(t)
	var dirs []string
	for _, version := range []string{"1.0", "2.0", "3.0"} {
		r, d := release(t, version)
		tree, err := s.IncomingTree(d)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s.fs, tree, version)
		if err := s.Install(t.Context(), tree, r, d); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, s.Dir(r))
	}
	sum := func(text string) [32]byte { return sha256.Sum256([]byte(text)) }
	app := func(version string) [32]byte { return sum("#!/bin/sh\necho " + version + "\n") }

	got, err := s.Find(t.Context(), [][32]byte{app("1.0"), app("2.0"), sum("hello from 2.0"), app("9.0"), sum("1.0"), {}})
	want := map[[32]byte]string{
		app("1.0"):            filepath.Join(dirs[0], "bin/app"),
		app("2.0"):            filepath.Join(dirs[1], "bin/app"),
		sum("hello from 2.0"): filepath.Join(dirs[1], "share/motd"),
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}

	if err := os.WriteFile(dirs[1]+manifestTail, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dirs[2] + manifestTail); err != nil {
		t.Fatal(err)
	}
	got, err = s.Find(t.Context(), [][32]byte{app("1.0"), app("2.0"), app("3.0")})
	if err != nil || len(got) != 1 || got[app("1.0")] == "" {
		t.Errorf("beside damaged ones: %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Find(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
