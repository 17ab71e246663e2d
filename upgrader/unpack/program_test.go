package unpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// image is a small ELF file, 64-bit and little-endian, as little as the
// kernel would load.
type image struct {
	machine elf.Machine
	kind    elf.Type
	interp  string // "": static
	phnum   uint16 // 0: as many as there are
	phoff   uint64 // 0: where they are
}

func (i image) bytes(order binary.ByteOrder) []byte {
	progs := []elf.Prog64{{Type: uint32(elf.PT_LOAD)}}
	end := uint64(64 + 56)
	if i.interp != "" {
		end += 56
		progs = append(progs, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: end, Filesz: uint64(len(i.interp)) + 1})
	}
	h := elf.Header64{
		Type: uint16(i.kind), Machine: uint16(i.machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs)),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if order == binary.BigEndian {
		h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	if i.phnum != 0 {
		h.Phnum = i.phnum
	}
	if i.phoff != 0 {
		h.Phoff = i.phoff
	}
	var b bytes.Buffer
	for _, part := range []any{h, progs, append([]byte(i.interp), 0)} {
		if err := binary.Write(&b, order, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

var amd64 = machines["amd64"]

func TestCheckImage(t *testing.T) {
	good := image{machine: elf.EM_X86_64, kind: elf.ET_EXEC}
	with := func(change func(*image)) []byte {
		i := good
		change(&i)
		return i.bytes(binary.LittleEndian)
	}
	patched := func(at int, b byte) []byte {
		data := good.bytes(binary.LittleEndian)
		data[at] = b
		return data
	}
	script := filepath.Join(t.TempDir(), "interpreter")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		data []byte
		want reason.Code
		text string // in the error
	}{
		{"static", good.bytes(binary.LittleEndian), "", ""},
		{"position-independent", with(func(i *image) { i.kind = elf.ET_DYN }), "", ""},
		{"loader here", with(func(i *image) { i.interp = "/bin/sh" }), "", ""},
		{"loader not here", with(func(i *image) { i.interp = "/lib/ld-musl-none.so.1" }), CodeInterpreter, "/lib/ld-musl-none.so.1"},
		{"loader relative", with(func(i *image) { i.interp = "ld.so" }), CodeInterpreter, "absolute"},
		{"loader a directory", with(func(i *image) { i.interp = "/" }), CodeInterpreter, "no executable file"},
		{"loader too long", with(func(i *image) { i.interp = "/" + strings.Repeat("x", 5000) }), CodeProgram, "loader"},
		{"arm64", with(func(i *image) { i.machine = elf.EM_AARCH64 }), CodeArch, "AARCH64 64-bit little-endian, want X86_64"},
		{"32-bit", patched(elf.EI_CLASS, byte(elf.ELFCLASS32)), CodeArch, "32-bit"},
		{"big-endian", image{machine: elf.EM_S390, kind: elf.ET_EXEC}.bytes(binary.BigEndian), CodeArch, "S390 64-bit big-endian"},
		{"no class", patched(elf.EI_CLASS, 7), CodeProgram, "class 7"},
		{"no byte order", patched(elf.EI_DATA, 9), CodeProgram, "byte order 9"},
		{"object file", with(func(i *image) { i.kind = elf.ET_REL }), CodeProgram, "ET_REL"},
		{"core", with(func(i *image) { i.kind = elf.ET_CORE }), CodeProgram, "ET_CORE"},
		{"nothing to load", patched(64, byte(elf.PT_NOTE)), CodeProgram, "nothing in it to load"},
		{"header cut", good.bytes(binary.LittleEndian)[:40], CodeProgram, "cut short"},
		{"header cut later", good.bytes(binary.LittleEndian)[:60], CodeProgram, "cut short"},
		{"program headers cut", good.bytes(binary.LittleEndian)[:100], CodeProgram, "cut short"},
		{"program headers beyond the end", with(func(i *image) { i.phoff = 1 << 40 }), CodeProgram, "cut short"},
		{"program headers before the start", with(func(i *image) { i.phoff = 1 << 63 }), CodeProgram, "program headers"},
		{"too many program headers", with(func(i *image) { i.phnum = 0xffff }), CodeProgram, "program headers"},

		{"script", []byte("#!/bin/sh\necho\n"), "", ""},
		{"script with argument", []byte("#! /usr/bin/env  sh\n"), "", ""},
		{"script of one line", []byte("#!/bin/sh"), "", ""},
		{"script of a script", []byte("#!" + script), CodeInterpreter, "no executable file"},
		{"script, interpreter not here", []byte("#!/usr/bin/none -x\n"), CodeInterpreter, "/usr/bin/none"},
		{"script, CR LF", []byte("#!/bin/sh\r\necho\r\n"), CodeInterpreter, "CR LF"},
		{"script, relative", []byte("#!sh\n"), CodeInterpreter, "absolute"},
		{"script, nothing named", []byte("#!  \n"), CodeInterpreter, "names no interpreter"},
		{"script, long line", []byte("#!/" + strings.Repeat("x", 300) + "\n"), CodeInterpreter, "longer than the kernel reads"},
		{"script, long argument", []byte("#!/bin/sh " + strings.Repeat("x", 300) + "\n"), "", ""},

		{"no #!", []byte("echo hello\n"), CodeProgram, "neither ELF nor a script"},
		{"one byte", []byte{0x7f}, CodeProgram, ""},
		{"gzip", []byte{0x1f, 0x8b, 8, 0}, CodeProgram, ""},
		{"HTML", []byte("<!DOCTYPE html>\n"), CodeProgram, ""},
		{"PE", []byte("MZ\x90\x00"), CodeProgram, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := checkImage(bytes.NewReader(tt.data), amd64)
			if reason.Of(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q with %q in it", err, tt.want, tt.text)
			}
			var e *Error
			if errors.As(err, &e) && e.Hint == "" {
				t.Errorf("got no hint: %v", err)
			}
		})
	}
}

func TestCheckProgram(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(name, []byte(text), 0o644), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := write("good", "#!/bin/sh\n", 0o555)
	if err := errors.Join(os.Symlink("good", dir+"/link"), unix.Mkfifo(dir+"/pipe", 0o777)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		want       reason.Code
	}{
		{"this test", self, ""},
		{"a program of this machine", shell, ""},
		{"a script", good, ""},
		{"not there", dir + "/none", CodeMissing},
		{"below a file", good + "/x", CodeMissing},
		{"directory", dir, CodeType},
		{"symlink", dir + "/link", CodeType},
		{"FIFO", dir + "/pipe", CodeType},
		{"device", "/dev/null", CodeType},
		{"empty", write("empty", "", 0o555), CodeEmpty},
		{"not executable", write("plain", "#!/bin/sh\n", 0o444), CodeMode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckProgram(tt.path)
			if reason.Of(err) != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "check program ") {
				t.Errorf("got %q, want it to say what was being done", err)
			}
		})
	}
	if _, known := machines[runtime.GOARCH]; !known {
		t.Errorf("no ELF machine is known for %s", runtime.GOARCH)
	}
}

func FuzzCheckImage(f *testing.F) {
	f.Add(image{machine: elf.EM_X86_64, kind: elf.ET_EXEC}.bytes(binary.LittleEndian))
	f.Add(image{machine: elf.EM_X86_64, kind: elf.ET_DYN, interp: "/lib64/ld-linux-x86-64.so.2"}.bytes(binary.LittleEndian))
	f.Add(image{machine: elf.EM_S390, kind: elf.ET_DYN, interp: "/lib/ld64.so.1"}.bytes(binary.BigEndian))
	f.Add([]byte("#!/bin/sh\n"))
	f.Add([]byte("#! /usr/bin/env sh"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range machines {
			if err := checkImage(bytes.NewReader(data), m); err != nil && reason.Of(err) == "" {
				t.Errorf("got an error without a code: %v", err)
			}
		}
	})
}
