package upgrader

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// deadline is a disk that ends the daemon at one of its calls, as a kill does.
type deadline struct {
	*store.Store
	at   string
	kill func()
}

func (d deadline) reached(call string) error {
	if call == d.at {
		d.kill()
		return errors.New("killed at " + call)
	}
	return nil
}

func (d deadline) IncomingTree(g store.Digest) (string, error) {
	if err := d.reached("unpacking"); err != nil {
		return "", err
	}
	return d.Store.IncomingTree(g)
}

func (d deadline) SetLink(which store.LinkName, r store.Release) error {
	if which == store.Staged {
		if err := d.reached("staging"); err != nil {
			return err
		}
	}
	return d.Store.SetLink(which, r)
}

// begins notes where each Fetch goes on from, and how often there was one.
type begins struct {
	source
	mu   *sync.Mutex
	from *[]int64
}

func (b begins) Fetch(ctx context.Context, c fetcher.Candidate, dir string, progress func(done, total int64)) (*fetcher.Verified, error) {
	b.mu.Lock()
	at := len(*b.from)
	*b.from = append(*b.from, -1) // nothing had to be transferred
	b.mu.Unlock()
	return b.source.Fetch(ctx, c, dir, func(done, total int64) {
		b.mu.Lock()
		if (*b.from)[at] < 0 {
			(*b.from)[at] = done
		}
		b.mu.Unlock()
		progress(done, total)
	})
}

// TestNoWorkIsRepeated kills the daemon with a part of an artifact here, with all
// of it, and with a release of it: the next one takes up what there is. What it
// does not need any more is not even at the source.
func TestNoWorkIsRepeated(t *testing.T) {
	const size = 600 << 10
	for name, c := range map[string]struct {
		dieAt string
		die   func(t *testing.T, w *world)
		gone  bool // the artifact, from the source
		want  func(from []int64) bool
	}{
		"a part": {"", func(t *testing.T, w *world) {
			w.eventually("a part is here", func(st TargetStatus) bool { return st.Progress != nil && st.Progress.Done > 300<<10 })
		}, false, func(from []int64) bool { return len(from) == 1 && from[0] >= 300<<10 && from[0] < size }},
		"all of it": {"unpacking", nil, true, func(from []int64) bool { return len(from) == 1 && from[0] == -1 }},
		"a release": {"staging", nil, true, func(from []int64) bool { return len(from) == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.running("1.0")
				w.target.Source.BandwidthMax = 10 << 10
				now := w.publish("1.1", strings.Repeat("# 1234567\n", size/10))
				dead := make(chan struct{})
				if c.dieAt != "" {
					w.wrap = func(s *store.Store) disk {
						return deadline{s, c.dieAt, sync.OnceFunc(func() { w.cancel(); close(dead) })}
					}
				}
				w.start()
				if c.die != nil {
					c.die(t, w)
				} else {
					<-dead
				}
				w.kill()
				w.wrap = nil
				if c.gone {
					must(t, os.Remove(filepath.Join(w.dir, "app_1.1.sh")))
				}
				var mu sync.Mutex
				var from []int64
				w.around = func(s source) source { return begins{s, &mu, &from} }
				w.start()
				w.settles(now, VerdictGood)
				mu.Lock()
				defer mu.Unlock()
				if !c.want(from) {
					t.Errorf("fetches went on from %d", from)
				}
				w.oracle()
			})
		})
	}
}

// A part that a failing source left is kept while the daemon is down, too.
func TestPartSurvivesFailureAndRestart(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.target.Source.BandwidthMax = 10 << 10
		now := w.publish("1.1", strings.Repeat("# 1234567\n", 60<<10))
		file := filepath.Join(w.dir, "app_1.1.sh")
		w.around = func(s source) source { return breaks{s} }
		w.start()
		w.eventually("it failed", func(st TargetStatus) bool { return st.State == Idle && strings.Contains(st.Trouble, "app_1.1.sh") })
		w.kill()
		time.Sleep(time.Hour)
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var from []int64
		w.around = func(s source) source { return begins{s, &mu, &from} }
		w.start()
		w.settles(now, VerdictGood)
		mu.Lock()
		defer mu.Unlock()
		if len(from) != 1 || from[0] < 200<<10 {
			t.Errorf("fetches went on from %d, want what 30 s brought", from)
		}
		w.oracle()
	})
}

// breaks is a source whose line breaks after half a minute.
type breaks struct{ source }

func (b breaks) Fetch(ctx context.Context, c fetcher.Candidate, dir string, progress func(done, total int64)) (*fetcher.Verified, error) {
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return b.source.Fetch(limited, c, dir, progress)
}
