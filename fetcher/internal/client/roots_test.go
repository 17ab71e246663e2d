package client

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestRootsAreShared has clients that trust the same file hold one pool, an edited
// file another, and nothing stay of what nobody uses.
func TestRootsAreShared(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "ca.pem")
	load := func(text []byte) any {
		t.Helper()
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		roots, err := loadRoots(file)
		if err != nil {
			t.Fatal(err)
		}
		return roots
	}
	count := func() int {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		return len(shared.pools)
	}
	runtime.GC()
	one, same, other := load(certificate), load(certificate), load(append([]byte("# edited\n"), certificate...))
	if one != same || one == other {
		t.Errorf("one and the same file: shared %v; an edited file: shared %v", one == same, one == other)
	}
	runtime.KeepAlive([]any{one, same, other}) // and not longer
	for deadline := time.Now().Add(time.Minute); count() > 0; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("%d pools stay that nobody uses", count())
		}
		time.Sleep(time.Millisecond)
	}
}
