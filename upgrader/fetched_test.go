package upgrader

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// seldom has the source asked by orders alone.
func (w *world) seldom() { w.target.Source.PollInterval = 300 * 24 * time.Hour }

// signed has the source's list signed from now on.
func (w *world) signed() {
	w.target.Source.Verify = fetcher.VerifySigned
	w.target.Source.Keys = []string{w.newKey()}
	if _, err := os.Lstat(filepath.Join(w.dir, "SHA256SUMS")); err == nil {
		w.manifest()
	}
}

// unplug takes the source away.
func (w *world) unplug() {
	w.t.Helper()
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Fatal(err)
	}
}

// imports gives files as an operator does, and tells the daemon.
func (w *world) imports(files ...string) (id string) {
	w.t.Helper()
	id, _, err := Import(context.Background(), w.state, w.target, files, func() error { return nil }, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.stop != nil {
		if err := w.daemon.Reload(context.Background(), []*Target{w.target}); err != nil {
			w.t.Fatal(err)
		}
	}
	return id
}

// stick copies what the source holds to where only the operator can read it, and
// takes the source away.
func (w *world) stick() (dir string) {
	w.t.Helper()
	dir = scratch(w.t)
	if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
		w.t.Fatal(err)
	}
	w.unplug()
	return dir
}

// spools are the directories of imports that are there.
func (w *world) spools() []string {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.state, "app", ".import-*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// waiting checks that a release is staged by order, and that old goes on.
func (w *world) waiting(name, old string) {
	w.t.Helper()
	if st := w.status(); st.State != Idle || st.Fetched != name || st.Staged != name || st.Current != old {
		w.t.Errorf("got %s: fetched %s, staged %s, current %s; want %s to wait, and %s to serve", st.State, st.Fetched, st.Staged, st.Current, name, old)
	}
	if got := w.unit.serving(); got != old {
		w.t.Errorf("%s serves, want %s", got, old)
	}
}

func TestFetch(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *world){
		"and upgrade without the source": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.seldom()
			w.start()
			w.looked()
			now := w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			w.says("the operator orders: fetch now", "1.1 is staged and waits for an upgrade to be ordered")
			w.waiting(now, old)
			w.unplug()
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictGood)
			w.settles(now, VerdictGood)
			if st := w.status(); st.Fetched != "" || st.Staged != "" {
				t.Errorf("got %+v", st)
			}
		},
		"waits through a restart of the daemon, and polls": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.seldom()
			w.start()
			w.looked()
			now := w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			w.kill()
			w.target.Source.PollInterval = 10 * time.Second
			w.start()
			time.Sleep(time.Hour)
			w.waiting(now, old)
			w.unplug()
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.1"}), VerdictGood)
			w.settles(now, VerdictGood)
		},
		"and something newer comes by itself": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.seldom()
			w.start()
			w.looked()
			now := w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			w.waiting(now, old)
			newer := w.publish("1.2", "")
			w.edit(func(t *Target) { t.Source.PollInterval = time.Minute })
			w.settles(newer, VerdictGood)
			if st := w.status(); st.Fetched != "" {
				t.Errorf("got %+v", st)
			}
		},
		"a version": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.seldom()
			w.start()
			w.looked()
			now := w.publish("1.1", "")
			w.publish("1.2", "")
			w.answered(w.order(Order{Verb: OrderFetch, Version: "1.1"}), VerdictStaged)
			w.waiting(now, old)
			w.answered(w.order(Order{Verb: OrderFetch, Version: "1.1"}), VerdictStaged) // as often as one likes
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictGood)
			w.settles(now, VerdictGood)
			w.edit(func(t *Target) { t.Source.PollInterval = time.Minute })
			time.Sleep(time.Hour)
			if st := w.status(); st.Current != now {
				t.Errorf("1.2, which was passed over, came by itself: %+v", st)
			}
		},
		"another version than the one that is upgraded to": func(t *testing.T, w *world) {
			w.running("1.0")
			w.seldom()
			w.start()
			w.looked()
			w.publish("1.1", "")
			newer := w.publish("1.2", "")
			w.answered(w.order(Order{Verb: OrderFetch, Version: "1.1"}), VerdictStaged)
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "1.2"}), VerdictGood)
			w.settles(newer, VerdictGood)
		},
		"nothing": func(t *testing.T, w *world) {
			w.running("1.0")
			w.seldom()
			w.start()
			a := w.answered(w.order(Order{Verb: OrderFetch}), "")
			if !strings.Contains(a.Reason, "nothing newer than 1.0") {
				t.Errorf("got %+v", a)
			}
			a = w.answered(w.order(Order{Verb: OrderFetch, Version: "7"}), VerdictRefused)
			if !strings.Contains(a.Reason, "does not offer 7") {
				t.Errorf("got %+v", a)
			}
			a = w.answered(w.order(Order{Verb: OrderFetch, Version: "1.0"}), VerdictRefused)
			if !strings.Contains(a.Reason, "1.0 is installed") {
				t.Errorf("got %+v", a)
			}
		},
		"what is older than was accepted": func(t *testing.T, w *world) {
			upgraded(w)
			w.publish("1.5", "")
			a := w.answered(w.order(Order{Verb: OrderFetch, Version: "1.5"}), VerdictRefused)
			if !strings.Contains(a.Reason, "older than 2.0") {
				t.Errorf("got %+v", a)
			}
		},
		"what fails its check": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.seldom()
			w.target.Check = []string{"bin/app", "--check"}
			w.unit.check, w.unit.checkCode = "failed", 3
			w.start()
			w.looked()
			w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictRefused)
			if st := w.status(); st.Fetched != "" || st.Current != old || len(st.KnownBad) != 1 {
				t.Errorf("got %+v", st)
			}
		},
		"what is known bad by the time of the upgrade": func(t *testing.T, w *world) {
			w.running("1.0")
			w.seldom()
			w.start()
			w.looked()
			name := w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			s, err := store.View(filepath.Join(w.state, "app"))
			if err != nil {
				t.Fatal(err)
			}
			r, _ := release(name)
			if err := s.MarkBad(mustDigest(t, s, r), store.Bad{Version: "1.1", Reason: "another host said so", When: time.Now()}); err != nil {
				t.Fatal(err)
			}
			a := w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictRefused)
			if !strings.Contains(a.Reason, "another host said so") {
				t.Errorf("got %+v", a)
			}
		},
		"what turns bad": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.seldom()
			w.unit.behave["1.1"] = neverReady
			w.start()
			w.looked()
			w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictRefused)
			w.settles(old, VerdictRefused)
		},
		"the first release": func(t *testing.T, w *world) {
			name := w.publish("1.0", "")
			if err := errors.Join(os.Mkdir(filepath.Join(w.state, "app"), 0o755), os.Mkdir(filepath.Join(w.state, "app", "releases"), 0o755)); err != nil {
				t.Fatal(err)
			}
			id := w.order(Order{Verb: OrderFetch})
			w.start()
			w.answered(id, VerdictStaged)
			w.unplug()
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictInstalled)
			w.settles(name, VerdictInstalled)
		},
		"with Swap=none": func(t *testing.T, w *world) {
			w.running("1.0")
			w.seldom()
			w.target.Swap = SwapNone
			w.start()
			w.looked()
			first := w.publish("1.1", "")
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged)
			w.eventually("held", func(st TargetStatus) bool { return st.State == Held && st.Staged == first })
			w.answered(w.order(Order{Verb: OrderFetch}), VerdictStaged) // the one that waits
			second := w.publish("1.2", "")
			w.answered(w.order(Order{Verb: OrderFetch, Version: "1.2"}), VerdictStaged)
			w.eventually("the newer one held", func(st TargetStatus) bool { return st.State == Held && st.Staged == second })
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				w.oracle()
			})
		})
	}
}

func TestImport(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *world){
		"an artifact, and upgrade": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.signed()
			now := w.publish("1.1", "")
			dir := w.stick()
			w.start()
			w.answered(w.imports(filepath.Join(dir, "app_1.1.sh")), VerdictStaged)
			w.says("the operator orders: import app_1.1.sh", "signature and digest hold", "1.1 is staged and waits")
			w.waiting(now, old)
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictGood)
			w.settles(now, VerdictGood)
		},
		"of a directory the newest": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.signed()
			w.publish("1.2", "")
			now := w.publish("1.10", "")
			dir := w.stick()
			w.start()
			w.answered(w.imports(dir), VerdictStaged)
			w.waiting(now, old)
		},
		"while the daemon is down": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.signed()
			now := w.publish("1.1", "")
			id := w.imports(w.stick())
			w.start()
			w.answered(id, VerdictStaged)
			w.waiting(now, old)
		},
		"the first release": func(t *testing.T, w *world) {
			w.signed()
			name := w.publish("1.0", "")
			dir := w.stick()
			w.start()
			w.eventually("it looked", func(st TargetStatus) bool { return st.Trouble != "" })
			w.answered(w.imports(dir), VerdictStaged)
			w.answered(w.order(Order{Verb: OrderUpgrade}), VerdictInstalled)
			w.settles(name, VerdictInstalled)
			if strings.Contains(w.out.String(), "answers again") {
				t.Error("a source that does not is said to answer")
			}
		},
		"files named one by one": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.signed()
			now := w.publish("1.1", "")
			dir := w.stick()
			apart := scratch(t)
			for _, name := range []string{"SHA256SUMS", "SHA256SUMS.minisig"} {
				if err := os.Link(filepath.Join(dir, name), filepath.Join(apart, name)); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			w.answered(w.imports(filepath.Join(dir, "app_1.1.sh"), filepath.Join(apart, "SHA256SUMS"), filepath.Join(apart, "SHA256SUMS.minisig")), VerdictStaged)
			w.waiting(now, old)
		},
		"unsigned, without a list": func(t *testing.T, w *world) {
			old := w.running("1.0")
			now := w.publish("1.1", "")
			dir := w.stick()
			if err := os.Remove(filepath.Join(dir, "SHA256SUMS")); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.answered(w.imports(dir), VerdictStaged)
			w.waiting(now, old)
		},
		"and the source goes on": func(t *testing.T, w *world) {
			w.running("1.0")
			w.signed()
			now := w.publish("1.1", "")
			dir := scratch(t)
			if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
				t.Fatal(err)
			}
			w.target.Source.PollInterval = 5 * time.Minute
			id := w.imports(dir)
			w.start()
			w.answered(id, VerdictStaged)
			newer := w.publish("1.2", "")
			w.settles(newer, VerdictGood)
			if now == newer {
				t.Error("nothing came")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				f(t, w)
				if left := w.spools(); len(left) != 0 {
					t.Errorf("left %q", left)
				}
				w.oracle()
			})
		})
	}
}

// TestImportRefused has the daemon judge what nobody should take. Each ends in one
// answer, changes nothing, and leaves nothing.
func TestImportRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, w *world, dir string)
		says  string
	}{
		"another's signature": {func(t *testing.T, w *world, dir string) {
			w.target.Source.Keys = []string{w.newKey()}
		}, "[SIG_"},
		"no signature": {func(t *testing.T, w *world, dir string) {
			must(t, os.Remove(filepath.Join(dir, "SHA256SUMS.minisig")))
		}, "[SIG_MISSING]"},
		"other bytes": {func(t *testing.T, w *world, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "app_1.1.sh"), []byte("#!/bin/sh\nevil\n"), 0o644))
		}, "[ARTIFACT_DIGEST]"},
		"a list that does not name it": {func(t *testing.T, w *world, dir string) {
			must(t, os.Rename(filepath.Join(dir, "app_1.1.sh"), filepath.Join(dir, "app_1.9.sh")))
		}, "does not name app_1.9.sh"},
		"a list that was changed": {func(t *testing.T, w *world, dir string) {
			raw, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "SHA256SUMS"), append(raw, raw[:64]...), 0o644))
		}, "[SIG_BAD]"},
		"a list too old": {func(t *testing.T, w *world, dir string) {
			w.target.Source.MaxAge = time.Minute
			time.Sleep(time.Hour)
		}, "[META_EXPIRED]"},
		"an older version": {func(t *testing.T, w *world, dir string) {
			w.target.MinVersion = "1.2"
		}, "older than MinVersion=1.2"},
		"an empty artifact": {func(t *testing.T, w *world, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "app_1.1.sh"), nil, 0o644))
		}, "[ARTIFACT_"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				old := w.running("1.0")
				w.signed()
				w.publish("1.1", "")
				dir := w.stick()
				c.spoil(t, w, dir)
				w.start()
				a := w.answered(w.imports(dir), VerdictRefused)
				if !strings.Contains(a.Reason, c.says) || strings.Contains(a.Reason, ".import-") {
					t.Errorf("got %q, want %q", a.Reason, c.says)
				}
				if st := w.status(); st.Current != old || st.Staged != "" || st.Fetched != "" {
					t.Errorf("got %+v", st)
				}
				time.Sleep(time.Second)
				if left := w.spools(); len(left) != 0 {
					t.Errorf("left %q", left)
				}
				w.oracle()
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestImportSeesFiles refuses before the daemon is asked what is no import, and
// copies nothing.
func TestImportSeesFiles(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		w.signed()
		w.publish("1.1", "")
		w.target.Source.SizeMax = 1 << 20
		dir := w.stick()
		at := func(name string) string { return filepath.Join(dir, name) }
		must(t, os.Mkdir(at("empty"), 0o755))
		must(t, os.Mkdir(at("app_1.3.sh"), 0o755))
		must(t, syscall.Mkfifo(at("app_1.4.sh"), 0o644))
		must(t, os.Symlink("app_1.1.sh", at("app_1.5.sh")))
		must(t, os.WriteFile(at("app_1.6.sh"), nil, 0o644))
		must(t, os.Truncate(at("app_1.6.sh"), 1<<40))
		alone := scratch(t)
		must(t, os.WriteFile(filepath.Join(alone, "app_1.1.sh"), []byte("x"), 0o644))
		bloated := scratch(t)
		must(t, os.CopyFS(bloated, os.DirFS(alone)))
		must(t, os.WriteFile(filepath.Join(bloated, "SHA256SUMS"), nil, 0o644))
		must(t, os.Truncate(filepath.Join(bloated, "SHA256SUMS"), 1<<30))
		for _, c := range []struct {
			files []string
			says  string
		}{
			{[]string{at("nothing")}, "no such file"},
			{[]string{at("empty")}, "holds no file that matches"},
			{[]string{at("app_1.3.sh")}, "holds no file that matches"},
			{[]string{at("app_1.4.sh")}, "is a FIFO, want a regular file"},
			{[]string{at("app_1.5.sh")}, "is a symbolic link, want a regular file"},
			{[]string{at("app_1.6.sh")}, "at most 1048576 are taken; raise SizeMax="},
			{[]string{"/dev/zero"}, "does not match"},
			{[]string{at("SHA256SUMS")}, "none of the files is an artifact"},
			{[]string{at("app_1.1.sh"), at("app_1.0.sh")}, "one artifact more"},
			{[]string{at("app_1.1.sh"), at("SHA256SUMS"), at("SHA256SUMS")}, "given twice"},
			{[]string{alone}, "no SHA256SUMS beside app_1.1.sh"},
			{[]string{bloated}, "at most 4194304 are taken; is that the right file?"},
		} {
			asked := false
			_, _, err := Import(t.Context(), w.state, w.target, c.files, func() error { asked = true; return nil }, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || asked {
				t.Errorf("%q: got %v, want %q", c.files, err, c.says)
			}
		}
		for says, source := range map[string]fetcher.Options{
			"with Manifest=no there is no list":                 {NoManifest: true, Verify: fetcher.VerifySigned},
			"only a tag tells its version, and files have none": {Patterns: []string{"app_@v.sh", "v@v/app.sh"}, Verify: fetcher.VerifySigned},
		} {
			other := *w.target
			other.Source = source
			_, _, err := Import(t.Context(), w.state, &other, []string{at("app_1.1.sh")}, func() error { return errors.New("asked") }, nil)
			if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "MatchPattern=") {
				t.Errorf("got %v, want %q", err, says)
			}
		}
		noDaemon := errors.New("the daemon does not run")
		if _, _, err := Import(t.Context(), w.state, w.target, []string{at("app_1.1.sh")}, func() error { return noDaemon }, nil); !errors.Is(err, noDaemon) {
			t.Errorf("got %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := Import(ended, w.state, w.target, []string{at("app_1.1.sh")}, func() error { return nil }, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: got %v", err)
		}
		if left := w.spools(); len(left) != 0 {
			t.Errorf("left %q", left)
		}
		if _, err := os.Lstat(filepath.Join(w.state, "app", "order.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an order is there: %v", err)
		}
	})
}

// TestSpoolsAreCleaned removes what a command that was killed left, and nothing
// that another is about to order.
func TestSpoolsAreCleaned(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.running("1.0")
		s, err := store.View(filepath.Join(w.state, "app"))
		must(t, err)
		killed, err := s.NewSpool("AAAAAAAAAAAAAAAA")
		must(t, err)
		must(t, killed.Add(t.Context(), "sub/file", strings.NewReader("half"), 10))
		killed.Close()
		busy, err := s.NewSpool("BBBBBBBBBBBBBBBB")
		must(t, err)
		w.start()
		w.eventually("only the busy one is left", func(TargetStatus) bool {
			left := w.spools()
			return len(left) == 1 && strings.HasSuffix(left[0], "-BBBBBBBBBBBBBBBB")
		})
		time.Sleep(time.Hour)
		must(t, busy.Add(t.Context(), "file", strings.NewReader("whole"), 10))
		busy.Close()
		w.eventually("none is left", func(TargetStatus) bool { return len(w.spools()) == 0 })
	})
}
