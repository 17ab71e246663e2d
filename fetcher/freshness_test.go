package fetcher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

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
