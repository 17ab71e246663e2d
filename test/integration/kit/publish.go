package kit

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/upgraderd/upgraderd/test/publish"
)

// Source is a place that releases appear at.
type Source struct {
	*publish.Publisher
	t   *testing.T
	put func(name string, data []byte)
	end func() error // of the server
}

// DirSource is a source in a directory of the machine.
func (m *Machine) DirSource(dir string) *Source {
	m.t.Helper()
	m.Run("mkdir", "-p", dir)
	return newSource(m.t, func(name string, data []byte) {
		m.t.Helper()
		if err := m.WriteFile(m.t.Context(), filepath.Join(dir, name), 0o644, data); err != nil {
			m.t.Fatal(err)
		}
	})
}

// HTTPSSource is a source that this test serves inside the machine's network,
// at an IP address and port. The PEM is what clients have to trust. The handler
// in between sees every request first; nil is none.
func (m *Machine) HTTPSSource(address string, between func(http.Handler) http.Handler) (*Source, []byte) {
	m.t.Helper()
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		m.t.Fatal(err)
	}
	config, authority, err := publish.TLS(ip)
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := m.Listen("tcp", address)
	if err != nil {
		m.t.Fatal(err)
	}
	dir := m.t.TempDir()
	var handler http.Handler = http.FileServer(http.Dir(dir))
	if between != nil {
		handler = between(handler)
	}
	server := &http.Server{Handler: handler, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.ServeTLS(l, "", "") }()
	m.t.Cleanup(func() { _ = server.Close() })
	source := newSource(m.t, func(name string, data []byte) {
		m.t.Helper()
		partial := filepath.Join(dir, ".partial")
		if err := os.WriteFile(partial, data, 0o644); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Rename(partial, filepath.Join(dir, name)); err != nil {
			m.t.Fatal(err)
		}
	})
	source.end = server.Close
	return source, authority
}

func newSource(t *testing.T, put func(string, []byte)) *Source {
	t.Helper()
	p, err := publish.New()
	if err != nil {
		t.Fatal(err)
	}
	return &Source{Publisher: p, t: t, put: put}
}

// Unplug takes the server of an [Machine.HTTPSSource] away, for good.
func (s *Source) Unplug() {
	s.t.Helper()
	if err := s.end(); err != nil {
		s.t.Fatal(err)
	}
}

// Publish puts a file of the host online as name, listed and signed.
func (s *Source) Publish(name, file string) {
	s.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.PublishBytes(name, data)
}

// PublishBytes is [Source.Publish] of what is in memory.
func (s *Source) PublishBytes(name string, data []byte) {
	s.t.Helper()
	s.Add(name, data)
	s.put(name, data)
	manifest := s.Manifest()
	s.put(publish.SignatureName, s.Sign(manifest))
	s.put(publish.ManifestName, manifest)
}

// Put puts bytes online under a name, as they are.
func (s *Source) Put(name string, data []byte) {
	s.t.Helper()
	s.put(name, data)
}
