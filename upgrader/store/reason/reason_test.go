package reason

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestFS(t *testing.T) {
	tests := []struct {
		err  error
		want Code
	}{
		{&fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}, NoSpace},
		{&fs.PathError{Op: "write", Path: "f", Err: syscall.EDQUOT}, Quota},
		{&fs.PathError{Op: "write", Path: "f", Err: syscall.EROFS}, ReadOnly},
		{&fs.PathError{Op: "fsync", Path: "f", Err: syscall.EIO}, IO},
		{&fs.PathError{Op: "open", Path: "f", Err: syscall.EACCES}, Permission},
		{&fs.PathError{Op: "rename", Path: "f", Err: syscall.EXDEV}, StagingFS},
		{&fs.PathError{Op: "open", Path: "f", Err: syscall.EMFILE}, NoFiles},
		{errors.Join(syscall.EIO, syscall.ENOSPC), IO}, // the first of a joined error is what went wrong
		{fs.ErrNotExist, ""},
		{&Error{Code: "OTHER", Err: syscall.EIO}, "OTHER"},
	}
	for _, tt := range tests {
		err := FS("save record", tt.err)
		if got := Of(err); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
		if !errors.Is(err, tt.err) || !strings.HasPrefix(err.Error(), "save record: ") {
			t.Errorf("%v: got %q, want it inside, and what was being done", tt.err, err)
		}
	}
	if err := FS("save record", nil); err != nil {
		t.Errorf("got %v for no error", err)
	}
	if Of(nil) != "" {
		t.Error("got a code for no error")
	}
}

func TestFull(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EIO: false} {
		if got := Full(fmt.Errorf("x: %w", FS("y", errno))); got != want {
			t.Errorf("%v: got %v, want %v", errno, got, want)
		}
	}
}

func ExampleError() {
	err := FS("save record", &fs.PathError{Op: "write", Path: "record.json", Err: syscall.EROFS})
	fmt.Println(err)
	fmt.Println(Of(err))
	// Output:
	// save record: [FS_READONLY] write record.json: read-only file system; look for the cause in the kernel's log and remount it read-write
	// FS_READONLY
}
