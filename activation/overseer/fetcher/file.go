package fetcher

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// A file that is written in place is left alone until it has rested.
	restTime  = 250 * time.Millisecond
	restTries = 20
)

// File follows a file of this host. What is there at Init counts as seen.
type File struct {
	// Path is the file's. It may be missing.
	Path string
	// Interval is the time between two looks. Default, and least, 1 s.
	Interval time.Duration
	// Keys are as for HTTP; the signature lies beside the file.
	Keys []string

	pace pace
	keys *ring
	seen string
}

// Init checks the fields.
func (f *File) Init() error {
	if f.Path == "" {
		return errors.New("set Path of fetcher.File")
	}
	f.Interval = max(f.Interval, time.Second)
	var err error
	if f.keys, err = newRing(f.Keys); err != nil {
		return err
	}
	f.seen, err = markOf(f.Path)
	return err
}

// markOf changes when the file does. One that is not there has none.
func markOf(path string) (string, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	return fmt.Sprintf("%d|%d", fi.ModTime().UnixNano(), fi.Size()), nil
}

// Fetch looks once.
func (f *File) Fetch() (io.Reader, error) {
	f.pace.wait(f.Interval)
	mark, err := markOf(f.Path)
	if err != nil || mark == "" || mark == f.seen {
		return nil, err
	}
	for range restTries {
		time.Sleep(restTime)
		now, err := markOf(f.Path)
		if err != nil || now == "" {
			return nil, err
		}
		if now == mark {
			return f.open(mark)
		}
		mark = now
	}
	return nil, fmt.Errorf("%s is still being written", f.Path)
}

func (f *File) open(mark string) (io.Reader, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	beside := func(name string) ([]byte, error) {
		b, err := readLimited(filepath.Join(filepath.Dir(f.Path), name), signatureMax)
		if errors.Is(err, fs.ErrNotExist) {
			err = errNotThere
		}
		return b, err
	}
	return finish(filepath.Base(f.Path), file, f.keys, beside, func() { f.seen = mark })
}
