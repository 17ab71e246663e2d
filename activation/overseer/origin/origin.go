// Package origin passes on where a program of overseer fetches its binaries from, to
// who is to fetch them in its stead.
//
// The promise: nobody has to run the program to learn it, and reading it does
// nothing that the program chose. A main process of package overseer holds it in a
// sealed memory file; "upgraderd adopt" finds that among the descriptors of the
// process.
//
//	/proc/PID/fd/N -> /memfd:overseer.origin (deleted)
//
// It holds no secret. Whoever reads it has it from the program, and believes no more of
// it than of the program.
package origin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Origin is where a fetcher looks.
type Origin struct {
	// Kind is file, http, s3 or github; or function, whose origin nobody can tell.
	Kind string `json:"kind"`
	// Path is a file, a URL, s3://BUCKET/KEY or github://USER/REPO; "" where a
	// function makes it.
	Path string `json:"path,omitempty"`
	// Region and Endpoint are those of the bucket, or the API of another GitHub.
	Region   string `json:"region,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Interval is the time between two looks.
	Interval time.Duration `json:"interval_ns,omitempty"`
	// Authorized tells that it shows a token, a password or keys.
	Authorized bool `json:"authorized,omitempty"`
	// Keys is how many public keys it trusts.
	Keys int `json:"keys,omitempty"`
	// PreUpgrade and NoRestartAfterFetch are of the Config of the program.
	PreUpgrade          bool `json:"pre_upgrade,omitempty"`
	NoRestartAfterFetch bool `json:"no_restart_after_fetch,omitempty"`
}

const (
	// name is what /proc/PID/fd calls the file, with "/memfd:" before it and
	// " (deleted)" behind.
	name  = "overseer.origin"
	seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	most  = 8 << 10
)

// Link is what the link in /proc/PID/fd reads as.
const Link = "/memfd:" + name + " (deleted)"

// Tell puts o into a memory file that is sealed. It is found for as long as the
// caller, who owns it, holds it open.
func (o Origin) Tell() (*os.File, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err = f.Write(text); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		err = os.NewSyscallError("fcntl", err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Read reads what another process tells, by the name of its descriptor in /proc. What
// that is, the process decides: only a small file is opened, so that nothing is waited
// for, and only a sealed memory file is read, so that it stays what it is.
func Read(file string) (Origin, error) {
	fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Origin{}, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Origin{}, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > most {
		return Origin{}, fmt.Errorf("%s is no small file", file)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return Origin{}, err
	}
	defer f.Close()
	if have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || have&seals != seals {
		return Origin{}, fmt.Errorf("%s is no sealed memory file", file)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, most))
	if err != nil {
		return Origin{}, err
	}
	var o Origin
	if err := json.Unmarshal(text, &o); err != nil {
		return Origin{}, fmt.Errorf("read what the program says of its fetcher: %w", err)
	}
	if o.Kind == "" {
		return Origin{}, errors.New("read what the program says of its fetcher: it says nothing")
	}
	return o, nil
}
