package upgrader

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher"
)

// TestLoneArtifact follows one signed file on a web server, in real time: it is
// replaced, and then put back with its old signature, which is told and not taken.
func TestLoneArtifact(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(http.FileServer(http.Dir(w.dir)))
	defer server.Close()
	w.target.Source = fetcher.Options{
		Target: "app", Path: server.URL + "/app", NoManifest: true, Keys: []string{w.newKey()}, PollInterval: time.Second,
	}
	publish := func(body string, signed time.Time) string {
		t.Helper()
		script := []byte("#!/bin/sh\n# " + body + "\n")
		signature := minisign.SignWithComments(w.private, script, fmt.Sprintf("timestamp:%d", signed.Unix()), "")
		for name, content := range map[string][]byte{"app": script, "app.minisig": signature} {
			temp := filepath.Join(w.dir, ".new")
			if err := errors.Join(os.WriteFile(temp, content, 0o644), os.Rename(temp, filepath.Join(w.dir, name))); err != nil {
				t.Fatal(err)
			}
		}
		sum := sha256.Sum256(script)
		return fmt.Sprintf("%s-%x", signed.UTC().Format("2006.01.02.150405"), sum[:6])
	}
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	first := publish("one", noon)
	w.start()
	w.settles(first, VerdictInstalled)
	second := publish("two", noon.Add(time.Hour))
	w.settles(second, VerdictInstalled)
	publish("one", noon)
	w.eventually("told that the source went back", func(TargetStatus) bool { return strings.Contains(w.out.String(), "offers 2026.11.01.120000 at most") })
	if st := w.status(); st.Current != second {
		t.Errorf("current is %s, want %s", st.Current, second)
	}
	w.oracle()
}
