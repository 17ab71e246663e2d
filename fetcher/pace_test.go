package fetcher

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// stream gives bytes at once, after it was silent for a while where that is said.
type stream struct {
	left    int
	silence map[int]time.Duration // by bytes left
	read    func(n int)
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	for at, d := range s.silence {
		if s.left <= at {
			delete(s.silence, at)
			time.Sleep(d)
		}
	}
	n := min(len(p), s.left)
	s.left -= n
	s.read(n)
	return n, nil
}

func (s *stream) Close() error { return nil }

// TestPace looks at each second of a transfer: none has more than its share, and
// together they take as long as they should.
func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		rate    int64
		size    int
		silence map[int]time.Duration
		want    time.Duration
	}{
		"slow":                {1 << 10, 60 << 10, nil, time.Minute},
		"fast":                {100 << 20, 1 << 30, nil, 10240 * time.Millisecond},
		"a silence in it":     {1 << 20, 20 << 20, map[int]time.Duration{10 << 20: 5 * time.Second}, 25 * time.Second},
		"less than a step is": {10, 100, nil, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				type gulp struct {
					at time.Duration
					n  int
				}
				var gulps []gulp
				s := &stream{c.size, c.silence, func(n int) { gulps = append(gulps, gulp{time.Since(began), n}) }}
				got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, pace(t.Context(), s, c.rate), make([]byte, 256<<10))
				if err != nil || got != int64(c.size) {
					t.Fatalf("got %d bytes, %v", got, err)
				}
				if took := time.Since(began); took < c.want*99/100-time.Second/10 || took > c.want*101/100+time.Second/10 {
					t.Errorf("took %v, want %v", took, c.want)
				}
				most := float64(c.rate)*1.1 + 2
				for i := range gulps {
					sum := 0
					for j := i; j < len(gulps) && gulps[j].at < gulps[i].at+time.Second; j++ {
						sum += gulps[j].n
					}
					if float64(sum) > most {
						t.Fatalf("%d bytes in the second from %v on, want %d at most", sum, gulps[i].at, c.rate)
					}
				}
			})
		})
	}
	t.Run("not at all", func(t *testing.T) {
		body := io.NopCloser(bytes.NewReader(nil))
		if pace(t.Context(), body, 0) != body {
			t.Error("there is something in between")
		}
	})
	t.Run("ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := io.Copy(io.Discard, pace(ctx, &stream{1 << 30, nil, func(int) {}}, 1))
			if fault.CodeOf(err) != fault.Canceled || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// TestBandwidthMax has a whole Fetch take its time, and be resumed in it.
func TestBandwidthMax(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", noise(t, 600<<10))
	o := s.options()
	o.BandwidthMax = 10 << 10
	synctest.Test(t, func(t *testing.T) {
		f, err := New(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c := newest(t, f)
		into := t.TempDir()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := f.Fetch(ctx, c, into, nil); fault.CodeOf(err) != fault.Canceled {
			t.Fatalf("got %v, want it ended after 20 s", err)
		}
		first := int64(-1)
		v, err := f.Fetch(t.Context(), c, into, func(done, total int64) {
			if first < 0 {
				first = done
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if took := time.Since(began); took < 58*time.Second || took > 64*time.Second {
			t.Errorf("took %v in all, want a minute", took)
		}
		if first < 150<<10 || first > 210<<10 {
			t.Errorf("went on from %d, want what 20 s brought", first)
		}
	})
}

func TestFixedDelay(t *testing.T) {
	o := Options{RandomizedDelay: time.Hour}
	for _, c := range []struct {
		seed uint64
		want time.Duration
	}{{1, 0}, {1 << 63, 30 * time.Minute}, {1 << 62, 15 * time.Minute}, {1<<64 - 1, time.Hour}} {
		o.FixedDelay = c.seed
		for range 3 {
			if got := o.delay(); got != c.want {
				t.Errorf("seed %d: got %v, want %v", c.seed, got, c.want)
			}
		}
	}
	o.RandomizedDelay = 0
	if got := o.delay(); got != 0 {
		t.Errorf("of no delay: got %v", got)
	}
	drawn := map[time.Duration]bool{}
	for range 100 {
		drawn[Options{RandomizedDelay: time.Hour}.delay()] = true
	}
	if len(drawn) < 90 {
		t.Errorf("drawn %d times, got %d delays", 100, len(drawn))
	}
}
