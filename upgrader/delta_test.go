package upgrader

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// patch publishes a patch between two versions, by bsdiff(1), for a release that
// is published next.
func (w *world) patch(from, to, body string) {
	w.t.Helper()
	script := func(version string) string { return "#!/bin/sh\n# " + version + "\n" + body + "\n" }
	scratch := w.t.TempDir()
	in := func(name string) string { return filepath.Join(scratch, name) }
	for name, text := range map[string]string{"old": script(from), "new": script(to)} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	name := "app_" + to + ".sh"
	patch := filepath.Join(w.dir, name+".from-"+from+".bsdiff")
	if out, err := exec.Command("bsdiff", in("old"), in("new"), patch).CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	st, err := os.Stat(patch)
	if err != nil {
		w.t.Fatal(err)
	}
	size, result := len(script(to)), sha256.Sum256([]byte(script(to)))
	index := fmt.Sprintf("artifact %d %s\ncontent %x %d %s\nbsdiff %x %x %d %d %s\n", size, name, result, size, name,
		sha256.Sum256([]byte(script(from))), result, size, st.Size(), filepath.Base(patch))
	if err := os.WriteFile(filepath.Join(w.dir, name+".deltas"), []byte(index), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// TestDelta takes the next release by a patch of the one that runs, and the one
// after whole, since its patch is damaged.
func TestDelta(t *testing.T) {
	body := strings.Repeat("# this is said over and over again, and differs in number: ", 200)
	in(t, func(t *testing.T, w *world) {
		first := w.publish("1.0", body)
		w.patch("1.0", "2.0", body)
		w.start()
		w.eventually("1.0 runs", func(st TargetStatus) bool { return st.State == Idle && st.Current == first })
		w.kill()
		second := w.publish("2.0", body)
		patch, err := os.Stat(filepath.Join(w.dir, "app_2.0.sh.from-1.0.bsdiff"))
		must(t, err)
		if p := w.foresee(); !p.Patched || p.Bytes != patch.Size() {
			t.Errorf("the plan has %+v, want the %d bytes of the patch", p, patch.Size())
		}
		w.start()
		w.eventually("2.0 runs", func(st TargetStatus) bool { return st.State == Idle && st.Current == second })
		w.saysOnce("the digest holds; nobody signed it; made by a patch of what was here")
		w.saysOnce("patched")

		w.patch("2.0", "3.0", body)
		if err := os.WriteFile(filepath.Join(w.dir, "app_3.0.sh.from-2.0.bsdiff"), []byte("damaged"), 0o644); err != nil {
			t.Fatal(err)
		}
		third := w.publish("3.0", body)
		w.eventually("3.0 runs", func(st TargetStatus) bool { return st.State == Idle && st.Current == third })
		w.saysOnce("patches are of no use, fetching the whole file")
		for _, name := range []string{second, third} {
			if w.damaged(name) {
				t.Errorf("%s is not what was installed", name)
			}
		}
		w.oracle()
	})
}
