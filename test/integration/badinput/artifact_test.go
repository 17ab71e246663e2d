//go:build integration

package badinput

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/publish"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// entry is one of an archive.
type entry struct {
	name, link string
	kind       byte
	mode       int64
	data       []byte
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.data))}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// artifactFaults are releases that the publisher signed, and that must not run.
func artifactFaults() []fault {
	bad := func(name string, says string, data func(s *scene) []byte) fault {
		return fault{
			name: name, event: journal.ReleaseRefused,
			says:  []string{"2.0.0", "1.0.0", says},
			begin: func(s *scene) { s.publishBad(data(s)) },
		}
	}
	// Beside a program that is as good as any.
	smuggled := func(name, says string, e entry) fault {
		f := bad(name, says, func(s *scene) []byte {
			return archive(s.t, entry{name: "bin/" + name, mode: 0o755, data: s.make("2.0.0", name)}, e)
		})
		f.tar = true
		return f
	}
	return []fault{
		bad("machine", "[ARTIFACT_ARCH]", func(s *scene) []byte {
			program := bytes.Clone(s.release("2.0.0"))
			program[18] = 243 // e_machine: RISC-V
			return program
		}),
		bad("script", "[ARTIFACT_FORMAT]", func(*scene) []byte { return []byte("echo hello\nexit 0\n") }),
		bad("page", "[ARTIFACT_FORMAT]", func(*scene) []byte { return []byte("<!DOCTYPE html><title>hello</title>\n") }),
		bad("interpreter", "[ARTIFACT_INTERPRETER]", func(*scene) []byte { return []byte("#!/opt/none/python\n") }),
		smuggled("dotdot", "[ARCHIVE_PATH]", entry{name: "bin/../../../escaped", mode: 0o644, data: []byte("x")}),
		smuggled("absolute", "[ARCHIVE_PATH]", entry{name: "/etc/upgraderd/escaped.upgrade", mode: 0o644, data: []byte("x")}),
		smuggled("symlink", "[ARCHIVE_PATH]", entry{name: "etc", link: "../../../../../etc", kind: tar.TypeSymlink, mode: 0o777}),
		smuggled("abslink", "[ARCHIVE_PATH]", entry{name: "passwd", link: "/etc/passwd", kind: tar.TypeSymlink, mode: 0o777}),
		smuggled("hardlink", "[ARCHIVE_TYPE]", entry{name: "passwd", link: "../../../../etc/passwd", kind: tar.TypeLink, mode: 0o644}),
		smuggled("device", "[ARCHIVE_TYPE]", entry{name: "null", kind: tar.TypeChar, mode: 0o666}),
		smuggled("fifo", "[ARCHIVE_TYPE]", entry{name: "pipe", kind: tar.TypeFifo, mode: 0o666}),
		smuggled("setuid", "[ARCHIVE_TYPE]", entry{name: "bin/root", mode: 0o4755, data: []byte("x")}),
		{
			name: "cut", tar: true, event: journal.ReleaseRefused, says: []string{"[ARCHIVE_CORRUPT]"},
			begin: func(s *scene) { whole := s.release("2.0.0"); s.publishBad(whole[:len(whole)/2]) },
		},
		{
			name: "elsewhere", tar: true, event: journal.ReleaseRefused, says: []string{"[ARTIFACT_MISSING]", "bin/elsewhere"},
			begin: func(s *scene) {
				s.publishBad(archive(s.t, entry{name: "sbin/elsewhere", mode: 0o755, data: s.make("2.0.0", s.name)}))
			},
		},
		{
			name: "check", more: "[Upgrade]\nCheck=bin/check -h\n", event: journal.ReleaseRefused,
			says:  []string{"Check= failed", "journalctl -u upgraderd-check@check.service"},
			begin: func(s *scene) { s.publishBad([]byte("#!/bin/sh\nexit 3\n")) },
			// Complete, known bad, and kept while InstancesMax= has room.
			leaves: func(entry string) bool { return strings.HasPrefix(entry, "releases/2.0.0-") },
		},
		// What does not hold is not even unpacked, and may be mended under its
		// own name.
		{
			name: "empty", event: journal.SourceFailed, says: []string{"[ARTIFACT_EMPTY]", "publish it anew"},
			begin: func(s *scene) { s.publishBad([]byte{}) },
		},
		{
			name: "digest", event: journal.SourceFailed, says: []string{"[ARTIFACT_DIGEST]", "digest-2.0.0"},
			begin: func(s *scene) {
				s.publish("2.0.0")
				data, _ := s.site.file(s.file("2.0.0"))
				wrong := bytes.Clone(data)
				wrong[len(wrong)/2] ^= 1
				s.site.put(s.file("2.0.0"), wrong)
			},
			end: func(s *scene) { s.publish("2.0.0") },
		},
		{
			name: "stranger", event: journal.SourceFailed, says: []string{"[SIG_KEY]", "Key="},
			begin: func(s *scene) {
				impostor := newSite(s.t)
				impostor.publish(s.file("2.0.0"), s.release("2.0.0"))
				for name, data := range impostor.files {
					s.site.put(name, data)
				}
			},
			end: func(s *scene) { s.publish("2.0.0") },
		},
		{
			name: "unsigned", event: journal.SourceFailed, says: []string{"[SIG_MISSING]", publish.SignatureName, "minisign"},
			begin: func(s *scene) {
				s.publish("2.0.0")
				s.site.put(publish.SignatureName, nil)
			},
			end: func(s *scene) { s.publish("2.0.0") },
		},
		{
			name: "forged", event: journal.SourceFailed, says: []string{"[SIG_BAD]"},
			begin: func(s *scene) {
				signature, _ := s.site.file(publish.SignatureName)
				s.publish("2.0.0")
				s.site.put(publish.SignatureName, signature)
			},
			end: func(s *scene) { s.publish("2.0.0") },
		},
	}
}
