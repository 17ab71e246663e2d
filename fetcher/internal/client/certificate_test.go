package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// authority makes certificates of hosts that ask.
type authority struct {
	t    *testing.T
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue gives a certificate and its key, in PEM.
func (a *authority) issue(name string, from, until time.Duration) (chain, key []byte) {
	a.t.Helper()
	a.n++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.root, private.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// guarded starts a server that answers with the name in the caller's certificate,
// and gives a file with its own.
func (a *authority) guarded(version uint16, want tls.ClientAuthType) (server *httptest.Server, ca string) {
	a.t.Helper()
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		name := "nobody"
		if peers := r.TLS.PeerCertificates; len(peers) > 0 {
			name = peers[0].Subject.CommonName
		}
		fmt.Fprint(w, name)
	}))
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	server.TLS = &tls.Config{ClientAuth: want, ClientCAs: pool, MaxVersion: version}
	server.StartTLS()
	a.t.Cleanup(server.Close)
	ca = filepath.Join(a.t.TempDir(), "ca.pem")
	write(a.t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return server, ca
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCertificate(t *testing.T) {
	a := newAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server, ca := a.guarded(version, tls.RequireAndVerifyClientCert)
		c := credential.Certificate{File: filepath.Join(t.TempDir(), "cert.pem"), KeyFile: filepath.Join(t.TempDir(), "key.pem")}
		chain, key := a.issue("one", -time.Minute, time.Hour)
		write(t, c.File, chain)
		write(t, c.KeyFile, key)
		s := newSite(t, server.URL, Options{CAFile: ca, Certificate: c})
		before := sourcetest.OpenFiles(t)
		want := func(name string) {
			t.Helper()
			for range 2 {
				s.Close() // the next look, with a connection of its own
				raw, _, err := s.Read(context.Background(), "file", 10, "")
				if err != nil || string(raw) != name {
					t.Errorf("server saw %q, %v; want %q", raw, err, name)
				}
			}
		}
		refused := func(code fault.Code, says string) {
			t.Helper()
			s.Close()
			_, _, err := s.Read(context.Background(), "file", 10, "")
			if fault.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %s that says %q", err, code, says)
			}
		}
		want("one")

		chain, key2 := a.issue("two", -time.Minute, time.Hour)
		write(t, c.File, chain) // and not yet its key
		refused(fault.ConfigSource, "private key does not match")
		write(t, c.KeyFile, key2)
		want("two")

		for _, late := range []struct {
			from, until time.Duration
			says        string
		}{{-time.Hour, -time.Minute, `the certificate of "CN=three" ended at`}, {time.Minute, time.Hour, `the certificate of "CN=three" counts from`}} {
			chain, key := a.issue("three", late.from, late.until)
			write(t, c.File, chain)
			write(t, c.KeyFile, key)
			refused(fault.TLS, late.says)
		}
		chain, key = newAuthority(t).issue("stranger", -time.Minute, time.Hour)
		write(t, c.File, chain)
		write(t, c.KeyFile, key)
		refused(fault.TLS, "certificate")
		if err := os.Remove(c.KeyFile); err != nil {
			t.Fatal(err)
		}
		refused(fault.ConfigSource, "no such file")
		chain, key = a.issue("four", -time.Minute, time.Hour)
		write(t, c.File, chain)
		write(t, c.KeyFile, key)
		want("four")
		s.Close()
		sourcetest.Settled(t, before)
	}
}

// TestCertificateStaysHome redirects to a server that asks whoever comes for a
// certificate.
func TestCertificateStaysHome(t *testing.T) {
	a := newAuthority(t)
	home, ca := a.guarded(0, tls.RequireAndVerifyClientCert)
	stranger, strangers := a.guarded(0, tls.RequestClientCert)
	both, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile(strangers)
	if err != nil {
		t.Fatal(err)
	}
	write(t, ca, append(both, more...))
	dir := t.TempDir()
	c := credential.Certificate{File: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	chain, key := a.issue("one", -time.Minute, time.Hour)
	write(t, c.File, chain)
	write(t, c.KeyFile, key)
	s := newSite(t, home.URL, Options{CAFile: ca, Certificate: c})
	for to, want := range map[string]string{
		home.URL: "one",
		strings.Replace(stranger.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1): "nobody",
	} {
		r := s.request("file")
		r.URL.RawQuery = "to=" + to
		raw, _, err := s.Client.Read(context.Background(), r, 10, "")
		if err != nil || string(raw) != want {
			t.Errorf("by way of %s: %q, %v; want %q", to, raw, err, want)
		}
	}
}

func TestNewRefusesABrokenCertificate(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		write(t, name, content)
		return name
	}
	chain, key := a.issue("one", -time.Minute, time.Hour)
	_, otherKey := a.issue("two", -time.Minute, time.Hour)
	good, goodKey := file("cert", chain), file("key", key)
	for _, c := range []struct {
		name       string
		chain, key string
		says       string
	}{
		{"no key", good, "", "without PrivateKeyFile="},
		{"no certificate", "", goodKey, "without CertificateFile="},
		{"none of that name", filepath.Join(dir, "none"), goodKey, "no such file"},
		{"no key of that name", good, filepath.Join(dir, "none"), "no such file"},
		{"a directory", dir, goodKey, "not a regular file"},
		{"a device", "/dev/zero", goodKey, "not a regular file"},
		{"the other way round", goodKey, good, "no PEM certificate"},
		{"the certificate twice", good, good, "no PEM private key"},
		{"another key", good, file("other", otherKey), "does not match"},
		{"an encrypted key", good, file("encrypted", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"+canary+"\n-----END ENCRYPTED PRIVATE KEY-----\n")), "encrypted"},
		{"a damaged key", good, file("damaged", []byte("-----BEGIN PRIVATE KEY-----\n"+canary+"\n-----END PRIVATE KEY-----\n")), "private key"},
		{"too large", file("large", make([]byte, credential.CertificateMax+1)), goodKey, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New("localhost", Options{Certificate: credential.Certificate{File: c.chain, KeyFile: c.key}})
			sourcetest.WantCode(t, err, fault.ConfigSource, false)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}
