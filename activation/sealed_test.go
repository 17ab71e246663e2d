package activation

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSealedState(t *testing.T) {
	data := bytes.Repeat([]byte("state"), 100_000)
	f, err := sealed("test", data)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("write: got nil, want the seal to refuse")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("truncate: got nil, want the seal to refuse")
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("another seal: got %v, want EPERM", err)
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil { // as another holder may leave it
		t.Fatal(err)
	}
	got, at, err := readState(f)
	if err != nil || !bytes.Equal(got, data) || at == 0 {
		t.Errorf("got %d bytes from %d, %v, want %d", len(got), at, err, len(data))
	}
	later, err := sealed("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	got, after, err := readState(later)
	if err != nil || got == nil || len(got) != 0 || after <= at {
		t.Errorf("empty state: got %q from %d, %v, want it newer than %d", got, after, err, at)
	}
}

func TestReadStateRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(path, []byte(stateMagic+"12345678data"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, _, err := readState(plain); err == nil {
		t.Error("a file that anybody may change: got nil, want an error")
	}
	if err := StoreState("big", make([]byte, maxState+1)); err == nil {
		t.Error("too much state: got nil, want an error")
	}
}
