package upgrader

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTransferIsShown has an artifact take a minute: on disk, by the daemon and in
// its STATUS=, and in the journal, not too often.
func TestTransferIsShown(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Source.BandwidthMax = 10 << 10
		var mu sync.Mutex
		var said []string
		w.notify = func(state ...string) error {
			mu.Lock()
			defer mu.Unlock()
			for _, s := range state {
				if text, ok := strings.CutPrefix(s, "STATUS="); ok && strings.Contains(text, "%") {
					said = append(said, text)
				}
			}
			return nil
		}
		now := w.publish("1.1", strings.Repeat("# 1234567\n", 60<<10)) // 600 KiB
		w.start()
		st := w.eventually("half of it is here", func(st TargetStatus) bool { return st.Progress != nil && st.Progress.Done > 300<<10 })
		p := st.Progress
		if p.Total < 600<<10 || p.Rate < 9<<10 || p.Rate > 11<<10 || p.LeftSec < 24 || p.LeftSec > 33 || time.Since(p.When) > 2*time.Second {
			t.Errorf("on disk: %+v", p)
		}
		if all := w.daemon.Status(); len(all) != 1 || all[0].Progress == nil || all[0].Progress.Done < p.Done || all[0].To != now {
			t.Errorf("by the daemon: %+v", all)
		}
		w.settles(now, VerdictGood)
		if st := w.daemon.Status()[0]; st.Progress != nil {
			t.Errorf("when it is over: %+v", st.Progress)
		}
		if _, err := os.Lstat(filepath.Join(w.state, "app", "progress.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("progress.json is left: %v", err)
		}
		if lines := strings.Count(w.out.String(), "fetching 1.1: "); lines < 4 || lines > 6 {
			t.Errorf("%d lines in the journal of a minute, want 5", lines)
		}
		w.says("of 600.0 KiB (", " %), 10.0 KiB/s, ")
		w.kill()
		if n := len(said); n < 30 || n > 65 || !strings.HasPrefix(said[0], "1 target: 1 fetching 1.1 (") {
			t.Errorf("STATUS= was told %d times: %.200q", n, said)
		}
		w.oracle()
	})
}

// A short one is not worth a word.
func TestShortTransferIsNotShown(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.start()
		w.settles(w.publish("1.1", ""), VerdictGood)
		if strings.Contains(w.out.String(), "fetching 1.1: ") {
			t.Error("it was told of")
		}
	})
}
