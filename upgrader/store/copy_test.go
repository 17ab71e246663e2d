package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

func TestCopy(t *testing.T) {
	from, to := newStore(t), newStore(t)
	r, d := release(t, "1.0")
	install(t, from, "1.0")
	for range 2 { // the second time there is nothing to do
		if err := to.Copy(t.Context(), from, r, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Verify(t.Context(), r); err != nil {
		t.Error(err)
	}
	a, _ := os.ReadFile(from.manifestName(r))
	b, err := os.ReadFile(to.manifestName(r))
	if err != nil || string(a) != string(b) {
		t.Errorf("the manifests differ: %v\n%s\n%s", err, a, b)
	}
	if err := to.CleanIncoming(nil); err != nil {
		t.Error(err)
	}
}

// A flipped bit is not passed on.
func TestCopyOfRot(t *testing.T) {
	from, to := newStore(t), newStore(t)
	r, d := release(t, "1.0")
	install(t, from, "1.0")
	app := filepath.Join(from.Dir(r), "bin/app")
	if err := os.Chmod(app, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(app, []byte("#!/bin/sh\necho rot\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := to.Copy(t.Context(), from, r, d); reason.Of(err) != CodeReleaseCorrupt {
		t.Errorf("got %v, want %s", err, CodeReleaseCorrupt)
	}
	if all, err := to.Releases(); err != nil || len(all) != 0 {
		t.Errorf("got %v %v, want nothing installed", all, err)
	}
	if err := to.Copy(t.Context(), from, r, digestOf("other")); err == nil {
		t.Error("another artifact under that name was taken")
	}
}
