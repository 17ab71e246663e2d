package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

type entry struct {
	tar.Header
	text string
}

func archived(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Size == 0 {
			e.Size = int64(len(e.text))
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush() // a file may be shorter than it says
	if err := w.Close(); err == nil {
		return &b
	}
	return &b
}

func file(name, text string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o4777}, text}
}

func TestUnpackInto(t *testing.T) {
	dir := t.TempDir()
	folder := entry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777}}
	if err := unpackInto(t.Context(), dir, archived(t, folder, file("./app_1.0", "program"), file("./metadata/1.root.json", "{}")), 1<<20); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"app_1.0": "program", "metadata/1.root.json": "{}"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "app_1.0")); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
}

// What came over the network stays in its directory, and within its limits.
func TestUnpackIntoRefuses(t *testing.T) {
	var many []entry
	for range archiveFiles + 1 {
		many = append(many, entry{Header: tar.Header{Name: "d", Typeflag: tar.TypeDir}})
	}
	for _, tc := range []struct {
		name    string
		entries []entry
		says    string
	}{
		{"nothing", nil, "it is empty"},
		{"way out", []entry{file("../app_1.0", "x")}, "escapes"},
		{"absolute", []entry{file("/etc/passwd", "x")}, "escapes"},
		{"link", []entry{{Header: tar.Header{Name: "app_1.0", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}}}, "neither a file nor"},
		{"device", []entry{{Header: tar.Header{Name: "app_1.0", Typeflag: tar.TypeChar}}}, "neither a file nor"},
		{"twice", []entry{file("a", "x"), file("a", "y")}, "exists"},
		{"large", []entry{{Header: tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 64 << 20}}}, "raise SizeMax="},
		{"many", many, "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := unpackInto(t.Context(), t.TempDir(), archived(t, tc.entries...), 1<<10)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
	cut := archived(t, file("a", strings.Repeat("x", 1<<10)))
	cut.Truncate(600)
	if err := unpackInto(t.Context(), t.TempDir(), cut, 1<<10); err == nil {
		t.Error("an archive that was cut short is taken")
	}
	if err := unpackInto(t.Context(), t.TempDir(), strings.NewReader("#!/bin/sh\nexit 1\n"+strings.Repeat("x", 600)), 1<<10); err == nil {
		t.Error("what is no archive is taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	silent, w := io.Pipe()
	defer w.Close()
	if err := unpackInto(ctx, t.TempDir(), silent, 1<<10); err == nil {
		t.Error("who says nothing is waited for")
	}
}

// A disk is not filled by what comes over the network.
func TestUnpackIntoLeavesRoom(t *testing.T) {
	dir := t.TempDir()
	if err := unpackInto(t.Context(), dir, archived(t, file("app_1.0", "program")), 1<<60); err != nil {
		t.Fatal(err)
	}
	huge := entry{Header: tar.Header{Name: "app_1.1", Typeflag: tar.TypeReg, Size: 1 << 50}}
	err := unpackInto(t.Context(), dir, archived(t, huge), 1<<60)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "stay free") {
		t.Errorf("got %v, want that it needs room", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "app_1.1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was begun all the same: %v", err)
	}
}

// An archive that comes slowly is waited for, one that does not come is not: others
// wait for their turn meanwhile.
func TestUnpackIntoDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		archive := archived(t, file("app_1.0", strings.Repeat("program ", 100)))
		from, to := io.Pipe()
		go func() {
			for { // a record of tar's now and then
				time.Sleep(inputStall - time.Second)
				if _, err := io.CopyN(to, archive, 512); err != nil {
					return
				}
			}
		}()
		if err := unpackInto(t.Context(), t.TempDir(), from, 1<<20); err != nil {
			t.Errorf("one that comes slowly: %v", err)
		}
		silent, end := io.Pipe()
		defer end.Close()
		began := time.Now()
		if err := unpackInto(t.Context(), t.TempDir(), silent, 1<<20); err == nil || !strings.Contains(err.Error(), "nothing came for 1m0s") || time.Since(began) != inputStall {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
