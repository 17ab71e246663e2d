package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/test/publish"
)

// site serves files over HTTPS. What it shows changes as a whole.
type site struct {
	server http.Server

	mu    sync.Mutex
	files map[string][]byte
}

// openSite serves on l, which has this address, until the caller closes the
// site. It gives the certificate to trust, in PEM.
func openSite(l net.Listener, address string) (*site, []byte, error) {
	config, authority, err := publish.TLS(address)
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	s := &site{}
	s.server = http.Server{
		Handler: s, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // clients that leave are no news
	}
	go func() { _ = s.server.ServeTLS(l, "", "") }() // ends with close
	return s, authority, nil
}

func (s *site) close() { _ = s.server.Close() }

// show replaces all files.
func (s *site) show(files map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = maps.Clone(files)
}

// ServeHTTP answers with a file, or a part of it, or that it did not change.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	data, ok := s.files[strings.TrimPrefix(r.URL.Path, sitePath)]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
