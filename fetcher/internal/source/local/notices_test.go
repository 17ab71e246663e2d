package local

import (
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// TestWatchesShareAnInstance watches more directories than a user has inotify
// instances, and one of them twice: each hears of its own, and nothing is left.
func TestWatchesShareAnInstance(t *testing.T) {
	before := sourcetest.OpenFiles(t)
	type watched struct {
		publish func()
		done    <-chan error
		cancel  func()
	}
	var all []watched
	var first *Dir
	for range 300 {
		d, p := newDir(t)
		if first == nil {
			first = d
		}
		done, cancel := watching(t, d, d.State())
		all = append(all, watched{func() { p.Publish("app", []byte("x")) }, done, cancel})
	}
	again, _ := watching(t, first, first.State())
	quietly(t, all[7].done)
	shared.mu.Lock()
	dirs := len(shared.dirs)
	shared.mu.Unlock()
	if dirs != len(all) {
		t.Errorf("%d directories are watched, want %d", dirs, len(all))
	}
	if got := sourcetest.OpenFiles(t); got > before+10 {
		t.Errorf("%d descriptors for %d watches", got-before, len(all))
	}
	all[0].publish()
	wantNilWithin(t, all[0].done, 20*pollEvery)
	wantNilWithin(t, again, 20*pollEvery)
	all[299].publish()
	wantNilWithin(t, all[299].done, 20*pollEvery)
	quietly(t, all[7].done)
	for _, w := range all[1:299] {
		w.cancel()
	}
	for _, w := range all[1:299] {
		<-w.done
	}
	sourcetest.Settled(t, before)
}

// TestWatchesEndTogether has the instance fail: each watch then looks by itself.
func TestWatchesEndTogether(t *testing.T) {
	d, p := newDir(t)
	done, _ := watching(t, d, d.State())
	quietly(t, done)
	shared.mu.Lock()
	shared.giveUp()
	shared.mu.Unlock()
	p.Publish("app", []byte("x"))
	wantNilWithin(t, done, 20*pollEvery)
}

func TestNoticesThatDoNotFit(t *testing.T) {
	w := &watch{events: make(chan notice, queued)}
	for range queued + 1 {
		w.send(notice{})
	}
	if len(w.events) != queued || !w.lost.Load() {
		t.Errorf("%d wait, lost %v", len(w.events), w.lost.Load())
	}
}
