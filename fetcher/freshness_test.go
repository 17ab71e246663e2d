package fetcher

import (
	"context"
	"crypto/sha256"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// TestManifestExpires keeps showing one valid manifest, as somebody would who
// hides newer ones.
func TestManifestExpires(t *testing.T) {
	for _, verify := range []Verify{VerifySigned, VerifyNo} {
		synctest.Test(t, func(t *testing.T) { // begins at midnight, 2000-01-01
			s := newShop(t)
			s.files["BEST-BEFORE-2000-02-01"] = nil
			s.files["BEST-BEFORE-2000-01-02"] = nil // the first counts
			s.release("app_1.bin", []byte("one"))
			o := s.options()
			if o.Verify = verify; verify == VerifyNo {
				o.Keys = nil
			}
			f := mustNew(t, o)
			time.Sleep(48*time.Hour - time.Nanosecond)
			l := mustCheck(t, f)
			if want := time.Date(2000, 1, 3, 0, 0, 0, 0, time.UTC); !l.Until.Equal(want) || len(l.Candidates) != 1 {
				t.Errorf("got %+v, want one candidate until %v", l, want)
			}
			time.Sleep(time.Nanosecond)
			for range 2 {
				l, err := f.Check(context.Background())
				if e := wantCode(t, err, fault.MetaExpired); !e.Temporary || e.Hint == "" || len(l.Candidates) > 0 {
					t.Errorf("%v, temporary %v, beside %+v", err, e.Temporary, l)
				}
			}
			// Whoever starts anew is not fooled either, and a new manifest is good.
			_, err := mustNew(t, o).Check(context.Background())
			wantCode(t, err, fault.MetaExpired)
			delete(s.files, "BEST-BEFORE-2000-01-02")
			s.release("app_2.bin", []byte("two"))
			if c := newest(t, f); c.Version != "2" {
				t.Errorf("newest is %v", c)
			}
		})
	}
}

// TestMaxAge has a publisher who signs, and then does not any more.
func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t)
		s.release("app_1.bin", []byte("one"))
		o := s.options()
		o.MaxAge = 30 * 24 * time.Hour
		f := mustNew(t, o)
		began := time.Now()
		time.Sleep(o.MaxAge)
		if l := mustCheck(t, f); !l.Signed.Equal(began) {
			t.Errorf("signed at %v, want %v", l.Signed, began)
		}
		time.Sleep(time.Second)
		_, err := f.Check(context.Background())
		if e := wantCode(t, err, fault.MetaExpired); !e.Temporary || !strings.Contains(err.Error(), "MaxAge=") {
			t.Error(err)
		}
		s.sign(s.manifest()) // the same list, signed anew
		mustCheck(t, f)

		// Who signs without saying when is not believed, and asks for a person.
		s.put(manifestName+".minisig", minisign.SignWithComments(s.private, s.manifest(), "by hand", ""))
		_, err = f.Check(context.Background())
		if e := wantCode(t, err, fault.MetaUndated); e.Temporary || e.Hint == "" {
			t.Error(err)
		}
		o.MaxAge = 0
		mustCheck(t, mustNew(t, o))
	})
}

// TestOlderList shows a host an old list that is signed well, while it runs and
// after a start, when the list offers something newer than what is installed.
func TestOlderList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t)
		s.release("app_1.bin", []byte("a hole"))
		oldList, oldSignature := s.manifest(), minisign.Sign(s.private, s.manifest())
		time.Sleep(time.Hour)
		delete(s.files, "app_1.bin")
		s.release("app_2.bin", []byte("mended"))
		f := mustNew(t, s.options())
		believed := mustCheck(t, f)
		var seen Seen
		seen = seen.With(believed, time.Now())

		s.put(manifestName+".minisig", oldSignature)
		s.put(manifestName, oldList)
		o := s.options()
		o.Seen = seen
		for name, f := range map[string]*Fetcher{"running": f, "started anew": mustNew(t, o)} {
			l, err := f.Check(context.Background())
			if e := wantCode(t, err, fault.MetaOlder); !e.Temporary || e.Hint == "" || len(l.Candidates) > 0 {
				t.Errorf("%s: %v beside %+v", name, err, l)
			}
		}
		// Without the memory it cannot be told.
		mustCheck(t, mustNew(t, s.options()))
		// The publisher withdraws a release by signing the rest anew.
		time.Sleep(time.Second)
		s.sign(oldList)
		if c := newest(t, f); c.Version != "1" {
			t.Errorf("newest is %v", c)
		}
	})
}

// TestSeen has signers and hosts whose clocks are wrong.
func TestSeen(t *testing.T) {
	noon := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	list := func(text string, signed time.Time) Listing {
		return Listing{List: sha256.Sum256([]byte(text)), Signed: signed}
	}
	var seen Seen
	seen = seen.With(list("a", noon.Add(365*24*time.Hour)), noon) // a signer ahead by a year
	if !seen.Signed.Equal(noon) {
		t.Errorf("the future was believed: %v", seen)
	}
	f := &Fetcher{seen: seen}
	for _, c := range []struct {
		name string
		l    Listing
		now  time.Time
		code fault.Code
	}{
		{"the next, by a signer who is right", list("b", noon.Add(time.Minute)), noon.Add(time.Minute), ""},
		{"older", list("b", noon.Add(-time.Second)), noon.Add(time.Minute), fault.MetaOlder},
		{"older, the clock jumped back", list("b", noon.Add(-time.Second)), noon.Add(-24 * time.Hour), fault.MetaOlder},
		{"the same list, by another signer before", list("a", noon.Add(-time.Hour)), noon, ""},
		{"it does not say when", list("b", time.Time{}), noon, ""},
	} {
		if err := f.fresh(c.l, c.now); fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want %q", c.name, err, c.code)
		}
	}
	// A clock that is set back makes nothing young again.
	f.o.MaxAge = time.Hour
	if err := f.fresh(list("a", noon.Add(-2*time.Hour)), noon.Add(-2*time.Hour)); fault.CodeOf(err) != fault.MetaExpired {
		t.Errorf("got %v", err)
	}
	f.o.MaxAge = 0
	if err := f.fresh(Listing{Until: noon}, noon.Add(-time.Hour)); fault.CodeOf(err) != fault.MetaExpired {
		t.Errorf("past its last day, by what was seen: %v", err)
	}
	if again := seen.With(list("b", noon.Add(-time.Minute)), noon); again != seen {
		t.Errorf("an older one took its place: %v", again)
	}
}
