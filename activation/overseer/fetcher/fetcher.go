// Package fetcher brings new binaries to package overseer: from a file, a web
// server, a bucket, the releases of a project on GitHub, or a function.
//
// The promise: what a fetcher returns came whole from where it looks, or the reader
// ends in an error; and what it had returned when an error came is returned again.
// With Keys it was signed by one of them, whoever controls the place.
//
// The shapes are those of github.com/jpillora/overseer/fetcher. They follow one
// file that has no list of releases beside it; who publishes such a list follows it with
// upgraderd, or package github.com/upgraderd/upgraderd/fetcher, which also
// resumes, goes round by mirrors and refuses to go back.
package fetcher

import (
	"fmt"
	"io"
	"time"
)

// Interface is what overseer polls.
type Interface interface {
	// Init checks the fields, once, before the first Fetch.
	Init() error
	// Fetch returns a new binary, or nil where there is none; the reader is closed
	// if it is an io.Closer. It is called again and again and has to wait by
	// itself: all fetchers of this package wait for their Interval, but for the
	// first time.
	Fetch() (io.Reader, error)
}

// Func makes a fetcher of a function, which is Fetch.
func Func(fn func() (io.Reader, error)) Interface { return function(fn) }

type function func() (io.Reader, error)

func (f function) Init() error               { return nil }
func (f function) Fetch() (io.Reader, error) { return f() }

// defaultInterval is how often a server is asked.
const defaultInterval = 5 * time.Minute

// pace waits before each turn but the first.
type pace struct{ begun bool }

func (p *pace) wait(interval time.Duration) {
	if p.begun {
		time.Sleep(interval)
	}
	p.begun = true
}

// whole calls done when all of a body was read.
type whole struct {
	io.Reader
	io.Closer
	done func()
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err == io.EOF {
		w.done()
	}
	return n, err
}

// finish makes of a body what Fetch returns: verified, unpacked if its name says
// gzip, and counted as seen only when it was read to its end.
func finish(name string, body io.ReadCloser, keys *ring, beside func(name string) ([]byte, error), seen func()) (io.Reader, error) {
	if keys != nil {
		verified, err := keys.verify(name, body, beside)
		body.Close()
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", name, err)
		}
		body = verified
	}
	r, err := unpack(name, body)
	if err != nil {
		body.Close()
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	return &whole{Reader: r, Closer: body, done: seen}, nil
}
