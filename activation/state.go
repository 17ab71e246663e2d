package activation

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoState says that the manager kept no state under the name.
var ErrNoState = errors.New("no state stored")

const (
	// maxState bounds what is written to and read from the store: it lives in
	// memory, and outlives the process that asked for it.
	maxState = 64 << 20

	// stateMagic begins every state, then 8 bytes big-endian of the boot clock
	// in nanoseconds, by which the newer of two copies is known.
	stateMagic  = "upgstat1"
	stateHeader = len(stateMagic) + 8

	stateSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
)

// nextState is what the copy in transit is called.
func nextState(name string) string { return name + ".next" }

// StoreState leaves data, at most 64 MiB, with the manager under name, in place
// of what was there: [TakeState] of the next process returns it. The bytes sit
// in a memory file that is sealed, so nobody who holds it can change it.
//
// For a moment there are two copies, the other as NAME.next: a process killed
// at any point leaves the old state or the new. Count both in
// FileDescriptorStoreMax=, and call [TakeState] first, which finishes what a
// killed process began. For names, and for what a manager may refuse silently,
// see [StoreFile]; a state's name has at most 250 characters, and belongs to
// one goroutine at a time.
func StoreState(name string, data []byte) error {
	if len(data) > maxState {
		return fmt.Errorf("store state %q: got %d bytes, want at most %d", name, len(data), maxState)
	}
	for _, n := range [...]string{name, nextState(name)} {
		if err := checkName(n); err != nil {
			return fmt.Errorf("store state: %w", err)
		}
	}
	// The manager removes by name only, all that has the name. So the new
	// state goes in beside the old, and then takes its place: at no step is
	// the newest copy removed.
	err := storeSealed(nextState(name), data)
	if err == nil {
		err = settleState(name, data)
	}
	if err != nil {
		return fmt.Errorf("store state %q: %w", name, err)
	}
	return nil
}

// settleState puts data, of which .next holds a copy, in the place of whatever
// name holds.
func settleState(name string, data []byte) error {
	if err := RemoveStored(name); err != nil {
		return err
	}
	if err := storeSealed(name, data); err != nil {
		return err
	}
	return RemoveStored(nextState(name))
}

// storeSealed makes a file of its own for each copy: systemd drops a second
// descriptor of the same one.
func storeSealed(name string, data []byte) error {
	f, err := sealed(name, data)
	if err != nil {
		return err
	}
	defer f.Close()
	return StoreFile(name, f)
}

// sealed returns a memory file with the header and data that nobody can change
// any more.
func sealed(name string, data []byte) (*os.File, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, os.NewSyscallError("clock_gettime", err)
	}
	// The name serves /proc only, and may have 249 bytes.
	fd, err := unix.MemfdCreate(name[:min(len(name), 200)], unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	header := binary.BigEndian.AppendUint64([]byte(stateMagic), uint64(now.Nano()))
	if _, err = f.Write(header); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, stateSeals)
		err = os.NewSyscallError("fcntl", err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// TakeState returns what [StoreState] last stored under name before this
// process was started, or [ErrNoState]. It takes the descriptors, so a second
// call finds none; the manager keeps its copies for the next process, until
// [StoreState] replaces them or [RemoveState] drops them.
func TakeState(name string) ([]byte, error) {
	var newest []byte
	var newestAt uint64
	var bad error
	begun := false // a StoreState that did not end
	for _, n := range [...]string{name, nextState(name)} {
		files, err := TakeStored(n)
		if err != nil {
			return nil, fmt.Errorf("take state %q: %w", name, err)
		}
		for _, f := range files {
			data, at, err := readState(f)
			f.Close()
			if err != nil {
				bad = err
				continue
			}
			if newest == nil || at > newestAt {
				newest, newestAt = data, at
			}
			begun = begun || n != name
		}
	}
	if begun {
		// Left as it is, the next StoreState would need room for a third copy.
		// Where this cannot be sent, the state is as safe as it was.
		_ = settleState(name, newest)
	}
	switch {
	case newest != nil:
		return newest, nil
	case bad != nil:
		return nil, fmt.Errorf("take state %q: %w", name, bad)
	}
	return nil, fmt.Errorf("take state %q: %w", name, ErrNoState)
}

// readState never returns nil data without an error.
func readState(f *os.File) (data []byte, at uint64, err error) {
	var seals int
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	if cerr := raw.Control(func(fd uintptr) {
		seals, err = unix.FcntlInt(fd, unix.F_GET_SEALS, 0)
	}); cerr != nil {
		return nil, 0, cerr
	}
	if err != nil || seals&stateSeals != stateSeals {
		return nil, 0, fmt.Errorf("descriptor %q is not a sealed memory file", f.Name())
	}
	// The offset is shared with every holder: read from 0, not from there.
	data, err = io.ReadAll(io.NewSectionReader(f, 0, int64(stateHeader+maxState+1)))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > stateHeader+maxState || len(data) < stateHeader || !bytes.HasPrefix(data, []byte(stateMagic)) {
		return nil, 0, fmt.Errorf("descriptor %q holds no state of ours", f.Name())
	}
	return data[stateHeader:], binary.BigEndian.Uint64(data[len(stateMagic):]), nil
}

// RemoveState makes the manager forget the state stored under name.
func RemoveState(name string) error {
	for _, n := range [...]string{name, nextState(name)} {
		if err := RemoveStored(n); err != nil {
			return fmt.Errorf("remove state %q: %w", name, err)
		}
	}
	return nil
}
