package unpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Reasons to refuse a program.
const (
	CodeMissing     reason.Code = "ARTIFACT_MISSING"     // it is not there
	CodeType        reason.Code = "ARTIFACT_TYPE"        // a directory, a symlink, a device
	CodeEmpty       reason.Code = "ARTIFACT_EMPTY"       // no bytes
	CodeMode        reason.Code = "ARTIFACT_MODE"        // not executable
	CodeNoExec      reason.Code = "ARTIFACT_NOEXEC"      // its file system forbids to execute
	CodeArch        reason.Code = "ARTIFACT_ARCH"        // for another machine
	CodeProgram     reason.Code = "ARTIFACT_FORMAT"      // nothing the kernel can execute
	CodeInterpreter reason.Code = "ARTIFACT_INTERPRETER" // needs a loader or interpreter that is not here
)

// machine is what the header of an ELF file has to say to run here.
type machine struct {
	class   elf.Class
	data    elf.Data
	machine elf.Machine
}

// machines by GOARCH. The daemon runs beside the service, so what it was
// built for is what the service has to be built for.
var machines = map[string]machine{
	"386":      {elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_386},
	"amd64":    {elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_X86_64},
	"arm":      {elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_ARM},
	"arm64":    {elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_AARCH64},
	"loong64":  {elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_LOONGARCH},
	"mips":     {elf.ELFCLASS32, elf.ELFDATA2MSB, elf.EM_MIPS},
	"mipsle":   {elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_MIPS},
	"mips64":   {elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_MIPS},
	"mips64le": {elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_MIPS},
	"ppc64":    {elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_PPC64},
	"ppc64le":  {elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_PPC64},
	"riscv64":  {elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_RISCV},
	"s390x":    {elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_S390},
}

func (m machine) String() string {
	bits, order := "64-bit", "little-endian"
	if m.class == elf.ELFCLASS32 {
		bits = "32-bit"
	}
	if m.data == elf.ELFDATA2MSB {
		order = "big-endian"
	}
	return strings.TrimPrefix(m.machine.String(), "EM_") + " " + bits + " " + order
}

// CheckConfig tells whether a tree holds a file or directory called name, which a
// symlink may lead to inside the tree.
func CheckConfig(tree, name string) error {
	op := fmt.Sprintf("check configuration %q", clip(name))
	root, err := os.OpenRoot(tree)
	if err != nil {
		return reason.FS(op, err)
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	info, err := root.Stat(name)
	switch {
	case err != nil:
		return withOp(op, &Error{Code: CodeMissing, Err: fs.ErrNotExist, Hint: "set Config= to where it lies in the release, or publish it there"})
	case !info.Mode().IsRegular() && !info.IsDir():
		return withOp(op, refuse(CodeType, "publish a file", "it is neither a file nor a directory"))
	}
	return nil
}

// CheckProgram tells whether the kernel of this machine would execute the file
// called name, without executing it: a regular file, executable, not empty,
// and either ELF for this machine, whose loader is here, or a script
// whose "#!" names an executable that is here. The last component of name is
// not followed if it is a symlink.
//
// It is no check of trust, and none of whether the program works: libraries,
// for one, are not looked for. Each refusal is an *Error with a code and what
// to do.
func CheckProgram(name string) error {
	op := fmt.Sprintf("check program %q", clip(name))
	if err := checkProgram(name); err != nil {
		return withOp(op, err)
	}
	return nil
}

func checkProgram(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		return &Error{Code: CodeMissing, Err: fs.ErrNotExist, Hint: "set Program= to where it lies in the release, or publish it there"}
	case err != nil:
		return err
	case info.IsDir():
		return refuse(CodeType, "set Program= to a file in it", "it is a directory")
	case info.Mode()&fs.ModeSymlink != 0:
		return refuse(CodeType, "set Program= to what it points at", "it is a symlink")
	case !info.Mode().IsRegular():
		return refuse(CodeType, "publish a file", "it is neither a file nor a directory")
	case info.Size() == 0:
		return refuse(CodeEmpty, "publish it again", "it is empty")
	case info.Mode()&0o111 == 0:
		return refuse(CodeMode, "pack it with its exec bit (chmod 755)", "it is not executable: mode %04o", info.Mode().Perm())
	}
	// Between the two calls the name may have come to mean something else,
	// so the file is opened in a way that can neither follow nor block.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err == nil && st.Flags&unix.ST_NOEXEC != 0 {
		return refuse(CodeNoExec, "mount it without noexec, or move the state directory", "its file system is mounted noexec")
	}
	return checkImage(f, machines[runtime.GOARCH])
}

// checkImage looks at what the kernel's binfmt handlers look at.
func checkImage(r io.ReaderAt, want machine) error {
	head := make([]byte, 256) // BINPRM_BUF_SIZE: as much as the kernel reads
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return checkELF(r, head, want)
	case bytes.HasPrefix(head, []byte("#!")):
		return checkScript(head)
	}
	return refuse(CodeProgram, "publish an executable, or a script that begins with #!", "it begins with %q: neither ELF nor a script", head[:min(len(head), 8)])
}

// checkELF reads the header and the program headers, elf(5).
func checkELF(r io.ReaderAt, head []byte, want machine) error {
	damaged := func(what string) error {
		return refuse(CodeProgram, "publish it again", "its ELF header is damaged: %s", what)
	}
	const shortest = 52 // bytes of the 32-bit header
	if len(head) < shortest {
		return damaged("it is cut short")
	}
	got := machine{class: elf.Class(head[elf.EI_CLASS]), data: elf.Data(head[elf.EI_DATA])}
	var order binary.ByteOrder = binary.LittleEndian
	switch got.data {
	case elf.ELFDATA2LSB:
	case elf.ELFDATA2MSB:
		order = binary.BigEndian
	default:
		return damaged(fmt.Sprintf("byte order %d", head[elf.EI_DATA]))
	}
	if got.class != elf.ELFCLASS32 && got.class != elf.ELFCLASS64 {
		return damaged(fmt.Sprintf("class %d", head[elf.EI_CLASS]))
	}
	got.machine = elf.Machine(order.Uint16(head[18:]))
	if got != want {
		return refuse(CodeArch, "publish one for this machine, and let MatchPattern= tell them apart (%a)", "it is for %s, want %s", got, want)
	}
	if kind := elf.Type(order.Uint16(head[16:])); kind != elf.ET_EXEC && kind != elf.ET_DYN {
		return refuse(CodeProgram, "link it", "it is ELF of type %s, want ET_EXEC or ET_DYN", kind)
	}
	var off int64
	var size, count int
	if got.class == elf.ELFCLASS64 {
		if len(head) < 64 {
			return damaged("it is cut short")
		}
		off, size, count = int64(order.Uint64(head[32:])), int(order.Uint16(head[54:])), int(order.Uint16(head[56:]))
	} else {
		off, size, count = int64(order.Uint32(head[28:])), int(order.Uint16(head[42:])), int(order.Uint16(head[44:]))
	}
	wantSize := 56
	if got.class == elf.ELFCLASS32 {
		wantSize = 32
	}
	// The kernel takes at most 64 KiB of program headers (load_elf_phdrs).
	if size != wantSize || count < 1 || count*size > 64<<10 || off < 0 {
		return damaged("its program headers")
	}
	table := make([]byte, count*size)
	if _, err := r.ReadAt(table, off); err != nil {
		return shortRead(err, damaged("it is cut short"))
	}
	loads := false
	for p := table; len(p) > 0; p = p[size:] {
		switch elf.ProgType(order.Uint32(p)) {
		case elf.PT_LOAD:
			loads = true
		case elf.PT_INTERP:
			var at, length int64
			if got.class == elf.ELFCLASS64 {
				at, length = int64(order.Uint64(p[8:])), int64(order.Uint64(p[32:]))
			} else {
				at, length = int64(order.Uint32(p[4:])), int64(order.Uint32(p[16:]))
			}
			if length < 2 || length > unix.PathMax || at < 0 {
				return damaged("the name of its loader")
			}
			name := make([]byte, length)
			if _, err := r.ReadAt(name, at); err != nil {
				return shortRead(err, damaged("it is cut short"))
			}
			name, zero := bytes.CutSuffix(name, []byte{0})
			if !zero {
				return damaged("the name of its loader")
			}
			name, _, _ = bytes.Cut(name, []byte{0})
			if err := checkInterpreter("its loader", string(name), "install the C library it is linked against, or publish a static one"); err != nil {
				return err
			}
		}
	}
	if !loads {
		return damaged("nothing in it to load")
	}
	return nil
}

// checkScript reads the first line as the kernel does (binfmt_script.c).
func checkScript(head []byte) error {
	line, _, whole := bytes.Cut(head[2:], []byte("\n"))
	line = bytes.Trim(line, " \t")
	name := line
	if i := bytes.IndexAny(line, " \t\x00"); i >= 0 {
		name = line[:i]
	} else if !whole && len(head) == 256 {
		return refuse(CodeInterpreter, "name a shorter interpreter", "its first line is longer than the kernel reads")
	}
	if len(name) == 0 {
		return refuse(CodeInterpreter, "name the interpreter after #!", "its first line names no interpreter")
	}
	hint := "install it, or publish a script for one that is here"
	if name[len(name)-1] == '\r' {
		hint = "its lines end in CR LF; publish it with LF alone"
	}
	return checkInterpreter("its interpreter", string(name), hint)
}

func checkInterpreter(what, name, hint string) error {
	if !filepath.IsAbs(name) {
		return refuse(CodeInterpreter, "name it from the root", "%s %q is not an absolute path", what, clip(name))
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return &Error{Code: CodeInterpreter, Err: fmt.Errorf("%s %q: %w", what, clip(name), errnoOf(err)), Hint: hint}
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return refuse(CodeInterpreter, hint, "%s %q is no executable file", what, clip(name))
	}
	return nil
}

// errnoOf takes off the path, which our own sentence quotes.
func errnoOf(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// shortRead is cut where the file ended, and the disk's error otherwise.
func shortRead(err, cut error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EINVAL) {
		return cut
	}
	return err
}

func refuse(code reason.Code, hint, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...), Hint: hint}
}
