package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher"
)

// TestVerifySourceThatAsks looks at a source as a host with a token, and as one
// without.
func TestVerifySourceThatAsks(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"app_1": "one", "SHA256SUMS": fmt.Sprintf("%x  app_1\n", sha256.Sum256([]byte("one"))),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cr3t-canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cr3t-canary" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	var out strings.Builder
	if err := verifySource(context.Background(), &out, server.URL, fetcher.Options{TokenFile: token, Patterns: []string{"app_@v"}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "a host takes: 1 (app_1, 3 bytes)") {
		t.Error(out.String())
	}
	err := verifySource(context.Background(), &out, server.URL, fetcher.Options{Patterns: []string{"app_@v"}})
	if err == nil || !strings.Contains(err.Error(), "FETCH_DENIED") || strings.Contains(out.String()+err.Error(), "canary") {
		t.Error(err)
	}
}
