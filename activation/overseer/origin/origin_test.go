package origin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is no sealed memory file is not read; a pipe would be waited for.
func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe, plain := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plain, []byte(`{"kind":"http"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(open)
	memory := func(text string) string {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if _, err := unix.Write(fd, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	for file, want := range map[string]string{
		pipe: "no small file", dir: "no small file", "/dev/zero": "no small file", plain: "no sealed memory file",
		fmt.Sprintf("/proc/self/fd/%d", open): "no sealed memory file",
		memory(strings.Repeat(" ", 9<<10)):    "no small file",
		memory("{}"):                          "it says nothing",
		memory("kind"):                        "invalid character",
		filepath.Join(dir, "nothing"):         "no such file",
	} {
		if o, err := Read(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", file, o, err, want)
		}
	}
}
