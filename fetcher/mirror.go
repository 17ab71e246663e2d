package fetcher

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// mirrorsMax bounds how long a look can take at the most: each mirror may be slow.
const mirrorsMax = 16

// mirror is one of several places that should hold the same: Path=, and after it
// each Mirror=. What a Check believes is from one of them as a whole, list and
// signatures, and so is what it remembers to ask only for changes. Fetch may take
// the bytes from any, since their digest is known.
type mirror struct {
	o      Options       // with the Path of this one
	source source.Source // Path
	file   string        // the one in it, with NoManifest
	lists  source.Source // what Check reads and Wait watches: source, or a part of it

	// Fetcher.mu guards these.
	cache  cache
	rest   time.Time  // it has asked to be left alone until then
	failed fault.Code // the last time, "" where it did not
}

func isWeb(path string) bool {
	u, err := url.Parse(path)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https")
}

// openMirrors opens all of them, or none.
func openMirrors(o Options) (mirrors []*mirror, err error) {
	defer func() {
		if err != nil {
			for _, m := range mirrors {
				m.close()
			}
		}
	}()
	switch {
	case len(o.Mirrors) >= mirrorsMax:
		return nil, fault.New(fault.ConfigSource, fmt.Errorf("%d mirrors, at most %d are taken", len(o.Mirrors), mirrorsMax-1), "remove some of Mirror=")
	case len(o.Mirrors) > 0 && !isWeb(o.Path):
		return nil, fault.New(fault.ConfigSource, errors.New("mirrors are given for what is not a web server"), "Mirror= is for a Path= that is an http(s) URL")
	}
	for i, path := range append([]string{o.Path}, o.Mirrors...) {
		m := &mirror{o: o}
		m.o.Mirrors = nil
		if i > 0 {
			if !isWeb(path) {
				return mirrors, fault.New(fault.ConfigSource, errors.New("what is not a web server is given as a mirror"), "Mirror= takes an http(s) URL")
			}
			m.o = o.elsewhere(path)
		}
		if o.NoManifest {
			if m.o.Path, m.file, err = splitFile(path); err != nil {
				return mirrors, err
			}
		}
		if m.source, err = openSource(m.o); err != nil {
			return mirrors, err
		}
		m.lists = m.source
		mirrors = append(mirrors, m)
		if o.Verify == VerifyTUF {
			if m.lists, err = openPart(m.o, "metadata"); err != nil {
				m.lists = m.source
				return mirrors, err
			}
		}
	}
	return mirrors, nil
}

func (m *mirror) close() {
	closeSource(m.source)
	if m.lists != m.source {
		closeSource(m.lists)
	}
}

// elsewhere gives the options of a mirror at path. What lets this host in at Path
// is shown to no other.
func (o Options) elsewhere(path string) Options {
	if origin(path) != origin(o.Path) {
		o.TokenFile, o.LoginFile, o.CertificateFile, o.PrivateKeyFile = "", "", "", ""
	}
	o.Path, o.Mirrors = path, nil
	return o
}

// origin is what one may trust as one: scheme, host and port. What is no URL has
// none, and no error here, since opening it has.
func origin(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}

// each has do try one mirror after the other, first before the others unless it is
// nil, until one succeeds or fails as all would. A mirror that asked to be left
// alone is, as long as there is another.
func (f *Fetcher) each(ctx context.Context, first *mirror, do func(m *mirror) error) error {
	var failures []*fault.Error
	for _, m := range f.order(first) {
		err := do(m)
		if err == nil {
			f.note(ctx, m, nil)
			return nil
		}
		e := *fault.Bare(err, fault.Local)
		e.Source = m.source.String()
		failures = append(failures, &e)
		if !another(e.Code) {
			break
		}
		f.note(ctx, m, &e)
	}
	return together(failures)
}

// order gives the mirrors in the order in which to ask them.
func (f *Fetcher) order(first *mirror) []*mirror {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	order := slices.DeleteFunc(slices.Clone(f.mirrors), func(m *mirror) bool { return now.Before(m.rest) })
	if len(order) == 0 {
		order = slices.Clone(f.mirrors)
	}
	if i := slices.Index(order, first); i > 0 {
		order = append([]*mirror{first}, slices.Delete(order, i, i+1)...)
	}
	return order
}

// note remembers how a mirror did. Where there are others, which make up for it, a
// line in the log is all that shows, once as long as it stays the same.
func (f *Fetcher) note(ctx context.Context, m *mirror, e *fault.Error) {
	code := fault.Code("")
	f.mu.Lock()
	m.rest = time.Time{}
	if e != nil {
		code = e.Code
		if e.RetryAfter > 0 {
			m.rest = time.Now().Add(e.RetryAfter)
		}
	}
	changed := m.failed != code
	m.failed = code
	f.mu.Unlock()
	switch {
	case len(f.mirrors) == 1 || !changed:
	case e == nil:
		f.log.InfoContext(ctx, "mirror is of use again", "mirror", m.source.String())
	default:
		f.log.WarnContext(ctx, "mirror is of no use", "mirror", m.source.String(), "reason", e.Err.Error(), "code", string(code))
	}
}

// another tells failures that another mirror may not have: all but those of this
// host.
func another(code fault.Code) bool {
	switch code {
	case fault.Canceled, fault.NoSpace, fault.NoInodes, fault.Quota, fault.ReadOnly, fault.IO, fault.NoFiles:
		return false
	}
	return true
}

// together makes one error of those of all mirrors. Its reason is that of the first
// which may pass by itself, so that the next try is soon; but what this host fails
// at is said alone.
func together(failures []*fault.Error) error {
	if last := failures[len(failures)-1]; len(failures) == 1 || !another(last.Code) {
		return last
	}
	main := failures[0]
	if i := slices.IndexFunc(failures, func(e *fault.Error) bool { return !persistent(e.Code) }); i > 0 {
		main = failures[i]
	}
	all := *main
	for _, e := range failures {
		all.RetryAfter = min(all.RetryAfter, e.RetryAfter) // some mirror may be asked then
		if e != main {
			all.Err = fmt.Errorf("%w; and from %s: %w (%s)", all.Err, e.Source, e.Err, e.Code)
		}
	}
	return &all
}
