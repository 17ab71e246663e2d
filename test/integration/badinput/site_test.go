//go:build integration

package badinput

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/test/integration/kit"
	"github.com/upgraderd/upgraderd/test/publish"
)

// site is where the releases of one target appear. It can misbehave.
type site struct {
	*publish.Publisher
	mu    sync.Mutex
	files map[string][]byte
	fault http.HandlerFunc
	// between is set from a request for the manifest to one for its signature.
	between bool
	dir     string // as the host knows it, where files appear as well; "" for none
}

func newSite(t *testing.T) *site {
	t.Helper()
	p, err := publish.New()
	if err != nil {
		t.Fatal(err)
	}
	return &site{Publisher: p, files: make(map[string][]byte)}
}

// publish puts a file online, listed and signed.
func (s *site) publish(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Add(name, data)
	s.files[name] = data
	manifest := s.Manifest()
	s.files[publish.ManifestName], s.files[publish.SignatureName] = manifest, s.Sign(manifest)
	for _, name := range []string{name, publish.SignatureName, publish.ManifestName} {
		s.appear(name)
	}
}

func (s *site) appear(name string) {
	if s.dir == "" {
		return
	}
	file, partial := filepath.Join(s.dir, name), filepath.Join(s.dir, ".partial")
	err := os.WriteFile(partial, s.files[name], 0o644)
	if err == nil {
		err = os.Rename(partial, file)
	}
	if err != nil {
		panic(err)
	}
}

// put puts a file online, and nothing else; no data takes it away.
func (s *site) put(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data == nil {
		delete(s.files, name)
		return
	}
	s.files[name] = data
}

// misbehave answers requests with h; nil is an end to it. It begins and ends
// with a cycle of the daemon's, which would otherwise meet two things at once.
func (s *site) misbehave(h http.HandlerFunc) {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		if !s.between || time.Now().After(deadline) {
			s.fault = h
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

func (s *site) file(name string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.files[name]
	return data, ok
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.between = fault == nil && fileOf(r) == publish.ManifestName
	s.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	s.behave(w, r)
}

func (s *site) behave(w http.ResponseWriter, r *http.Request) {
	data, ok := s.file(fileOf(r))
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// fileOf is the file that a request is for.
func fileOf(r *http.Request) string { return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] }

// listing tells requests for the manifest and its signature.
func listing(r *http.Request) bool { return strings.HasPrefix(fileOf(r), publish.ManifestName) }

// onlyArtifact lets the manifest through.
func (s *site) onlyArtifact(fault http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if listing(r) {
			s.behave(w, r)
			return
		}
		fault(w, r)
	}
}

// claim answers with part of the file under a wrong length, and hangs up.
func (s *site) claim(send, length func(size int) int) http.HandlerFunc {
	return s.onlyArtifact(func(w http.ResponseWriter, r *http.Request) {
		data, ok := s.file(fileOf(r))
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil || !ok {
			panic(http.ErrAbortHandler)
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", length(len(data)))
		_, _ = conn.Write(data[:send(len(data))]) // the client may have had enough
	})
}

// city is the server that all sites share, at /NAME/.
type city struct {
	m         *kit.Machine
	authority string // PEM
	mu        sync.Mutex
	sites     map[string]*site
}

const (
	cityAddress  = "127.0.0.1:8443"
	plainAddress = "127.0.0.1:8081"
)

func newCity(t *testing.T, m *kit.Machine) *city {
	t.Helper()
	c := &city{m: m, sites: make(map[string]*site)}
	config, authority, err := publish.TLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c.authority = string(authority)
	l, err := m.Listen("tcp", cityAddress)
	if err != nil {
		t.Fatal(err)
	}
	secure := &http.Server{Handler: c, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0), TLSNextProto: noHTTP2}
	go func() { _ = secure.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = secure.Close() })
	c.plain(t, m, plainAddress)
	return c
}

// noHTTP2: what hangs up in the middle has to have a connection of its own.
var noHTTP2 = map[string]func(*http.Server, *tls.Conn, http.Handler){}

// plain serves the same without TLS, until its end.
func (c *city) plain(t *testing.T, m *kit.Machine, address string) (end func()) {
	t.Helper()
	var l net.Listener
	var err error
	for range 100 { // the one before may take a moment to go
		if l, err = m.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	var (
		halting atomic.Bool
		once    sync.Once
		halted  = make(chan struct{})
	)
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The one client waits for this answer, so that no connection of its is in
		// the queue: closing that would break it, which is another fault.
		if halting.Load() {
			once.Do(func() {
				stopListening(t, l)
				close(halted)
			})
		}
		c.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return func() {
		halting.Store(true)
		select {
		case <-halted:
		case <-time.After(10 * time.Second):
			t.Error("nobody asks any more")
		}
	}
}

// stopListening has the next connection refused. Closing alone would not: a
// process that is just being forked holds the socket as well, and until it has
// become another program, connections queue up, to be reset with it.
func stopListening(t *testing.T, l net.Listener) {
	t.Helper()
	var shut error
	raw, err := l.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { shut = unix.Shutdown(int(fd), unix.SHUT_RD) })
	}
	if err = errors.Join(err, shut, l.Close()); err != nil {
		t.Errorf("stop listening: %v", err)
	}
}

func (c *city) add(name string, s *site) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sites[name] = s
}

func (c *city) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	c.mu.Lock()
	s := c.sites[name]
	c.mu.Unlock()
	if s == nil {
		http.NotFound(w, r)
		return
	}
	s.ServeHTTP(w, r)
}
