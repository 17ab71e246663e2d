package fetcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Origin is where a fetcher looks, for who is to look there in its stead. A main
// process of overseer that has a fetcher holds it in a memory file, where
// "upgraderd adopt" finds it: so nobody has to run the program to learn it. It
// holds no secret. Whoever reads it has it from the program, and believes no more of
// it than of the program.
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

// OriginOf tells where f looks, once its Init has gone well.
func OriginOf(f Interface) Origin {
	switch f := f.(type) {
	case *File:
		path, err := filepath.Abs(f.Path)
		if err != nil {
			path = ""
		}
		return Origin{Kind: "file", Path: path, Interval: f.Interval, Keys: len(f.Keys)}
	case *HTTP:
		o := Origin{Kind: "http", Interval: f.Interval, Authorized: f.Token != "", Keys: len(f.Keys)}
		if u, err := url.Parse(f.URL); err == nil && f.URL != "" {
			o.Authorized = o.Authorized || u.User != nil
			u.User = nil
			o.Path = u.String()
		}
		return o
	case *S3:
		return Origin{
			Kind: "s3", Path: "s3://" + f.Bucket + "/" + f.Key, Region: f.Region, Endpoint: f.Endpoint,
			Interval: f.Interval, Authorized: f.Access != "", Keys: len(f.Keys),
		}
	case *Github:
		o := Origin{Kind: "github", Path: "github://" + f.User + "/" + f.Repo, Interval: f.Interval, Authorized: f.Token != "", Keys: len(f.Keys)}
		if f.Endpoint != "https://api.github.com" {
			o.Endpoint = f.Endpoint
		}
		return o
	}
	return Origin{Kind: "function"}
}

const (
	// originName is what /proc/PID/fd calls the file, with "/memfd:" before it and
	// " (deleted)" behind.
	originName  = "overseer.origin"
	originSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	maxOrigin   = 8 << 10
)

// OriginLink is what the link in /proc/PID/fd reads as.
const OriginLink = "/memfd:" + originName + " (deleted)"

// Tell puts o into a memory file that is sealed. It is found for as long as the
// caller, who owns it, holds it open.
func (o Origin) Tell() (*os.File, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(originName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), originName)
	if _, err = f.Write(text); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, originSeals)
		err = os.NewSyscallError("fcntl", err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadOrigin reads what another process tells, by the name of its descriptor in
// /proc. Anything but a small sealed memory file is an error, and is not opened: what
// it is that process decides.
func ReadOrigin(name string) (Origin, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Origin{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Origin{}, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxOrigin {
		return Origin{}, fmt.Errorf("%s is no small file", name)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return Origin{}, err
	}
	defer f.Close()
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&originSeals != originSeals {
		return Origin{}, fmt.Errorf("%s is no sealed memory file", name)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxOrigin))
	if err != nil {
		return Origin{}, err
	}
	var o Origin
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&o); err != nil {
		return Origin{}, fmt.Errorf("read what the program says of its fetcher: %w", err)
	}
	if o.Kind == "" {
		return Origin{}, errors.New("read what the program says of its fetcher: it says nothing")
	}
	return o, nil
}
