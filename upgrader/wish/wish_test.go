package wish

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

func TestPin(t *testing.T) {
	for _, row := range []struct {
		pin      string
		yes, not []fetcher.Version
	}{
		{"1.4", []fetcher.Version{"1.4", "1.04"}, []fetcher.Version{"1.4.1", "1.40", "1"}},
		{"1.4.*", []fetcher.Version{"1.4.0", "1.4.10", "1.4.1.2"}, []fetcher.Version{"1.4", "1.40", "2.1.4.1"}},
		{"1.4*", []fetcher.Version{"1.4", "1.4.1", "1.40"}, []fetcher.Version{"1.3"}},
		{"2?-rc*", []fetcher.Version{"21-rc", "2a-rc1"}, []fetcher.Version{"2-rc1", "211-rc1"}},
	} {
		p := Pin{Version: row.pin}
		if err := p.check(); err != nil {
			t.Errorf("%s: %v", row.pin, err)
		}
		for _, v := range row.yes {
			if !p.Matches(v) {
				t.Errorf("%s does not match %s", row.pin, v)
			}
		}
		for _, v := range row.not {
			if p.Matches(v) {
				t.Errorf("%s matches %s", row.pin, v)
			}
		}
	}
	for _, bad := range []string{"", "*", "**", ".4", "1.[34]", `1\.4`, "1/4", "1 4", "1.4\n", strings.Repeat("1", 65)} {
		if err := (Pin{Version: bad}).check(); err == nil {
			t.Errorf("%q is a pin", bad)
		}
	}
}

func TestWords(t *testing.T) {
	when := time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)
	h, err := NewHold(26*time.Hour, Mark{By: "anna", Reason: "fair", When: when})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ got, want string }{
		{h.String(), "held until 2026-11-28 10:00 UTC by anna because fair"},
		{Hold{}.String(), "held"},
		{Pin{Version: "1.*", Mark: Mark{By: "anna"}}.String(), "pinned to 1.* by anna"},
		{Skip{Version: "1.5", Mark: Mark{Reason: "slow"}}.String(), "1.5 skipped because slow"},
	} {
		if row.got != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}

func TestChange(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	must := func(f func(*Wishes) error) {
		t.Helper()
		if err := Change(s, f); err != nil {
			t.Fatal(err)
		}
	}
	must(func(w *Wishes) error { w.Pin = &Pin{Version: "1.*"}; return nil })
	must(func(w *Wishes) error { return w.Skip("1.5", Mark{}) })
	must(func(w *Wishes) error { return w.Skip("1.05", Mark{Reason: "again"}) })
	w, err := Read(s)
	if err != nil || w.Pin == nil || len(w.Skips) != 1 || w.Skips[0].Reason != "again" || w.Hold != nil {
		t.Fatalf("got %+v, %v", w, err)
	}
	for name, f := range map[string]func(*Wishes) error{
		"no version":      func(w *Wishes) error { return w.Skip("1 5", Mark{}) },
		"reason of lines": func(w *Wishes) error { return w.Skip("1.6", Mark{Reason: "a\nb"}) },
		"hides":           func(w *Wishes) error { return w.Skip("1.6", Mark{Reason: "a\u202eb"}) },
		"long reason":     func(w *Wishes) error { return w.Skip("1.6", Mark{Reason: strings.Repeat("x", 257)}) },
		"any version":     func(w *Wishes) error { w.Pin.Version = "*"; return nil },
		"negative":        func(w *Wishes) (err error) { w.Hold = &Hold{ID: "x", ForSec: -1}; return nil },
		"too many": func(w *Wishes) error {
			for i := range 40 {
				if err := w.Skip("2."+strings.Repeat("1", i+1), Mark{}); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		if err := Change(s, f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got, err := Read(s); err != nil || len(got.Skips) != 1 {
		t.Errorf("after what was refused: %+v, %v", got, err)
	}
	must(func(w *Wishes) error { *w = Wishes{}; return nil })
	file := filepath.Join(s.Path(), "wishes.json")
	if _, err := os.Lstat(file); !os.IsNotExist(err) {
		t.Errorf("a file of nothing is left: %v", err)
	}
	for _, text := range []string{"{", `{"hold":{}}`, `{"pin":{"version":"[a"}}`, `{"skips":[{"version":""}]}`, `{"hold":{"id":"x","for_sec":-5}}`} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if w, err := Read(s); err == nil || !strings.Contains(err.Error(), "remove") {
			t.Errorf("%s: got %+v, %v", text, w, err)
		}
	}
}

func TestNewHold(t *testing.T) {
	for _, bad := range []time.Duration{-time.Hour, 20 * 365 * 24 * time.Hour} {
		if h, err := NewHold(bad, Mark{}); err == nil {
			t.Errorf("%v: got %v", bad, h)
		}
	}
	if h, err := NewHold(time.Millisecond, Mark{}); err != nil || h.For() != time.Second {
		t.Errorf("got %v, %v, want a whole second", h.For(), err)
	}
}

// What nobody could read back is not written.
func TestTooMuch(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "app"))
	if err != nil {
		t.Fatal(err)
	}
	m := Mark{By: "anna", Reason: strings.Repeat("<", 256), When: time.Now()} // six bytes each in JSON
	for i := range 32 {
		if err = Change(s, func(w *Wishes) error { return w.Skip(fmt.Sprintf("1.0.%d", i), m) }); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("took as much as it was given")
	}
	if w, err := Read(s); err != nil || len(w.Skips) == 0 {
		t.Errorf("what was there before: %d skips, %v", len(w.Skips), err)
	}
	if err := Change(s, func(w *Wishes) error { w.Skips = nil; return nil }); err != nil {
		t.Errorf("take back: %v", err)
	}
}
