package fetcher

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/web"
)

// inBubble runs test with a Fetcher of an HTTP source whose network and time are
// those of the test.
func inBubble(t *testing.T, o Options, answer func(w http.ResponseWriter, r *http.Request), test func(t *testing.T, f *Fetcher)) {
	t.Helper()
	o.Target, o.Path, o.Patterns, o.Verify = "app", "http://example.org/", []string{"app_@v"}, VerifyNo
	synctest.Test(t, func(t *testing.T) {
		network := make(pipes)
		server := &http.Server{Handler: http.HandlerFunc(answer)}
		go server.Serve(network)
		f := mustNew(t, o)
		src, err := web.New(&url.URL{Scheme: "http", Host: "example.org"}, client.Options{Dial: network.dial})
		if err != nil {
			t.Fatal(err)
		}
		f.mirrors[0].source, f.mirrors[0].lists = src, src
		test(t, f)
		server.Close()
	})
}

type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// waited tells how long a Wait takes.
func waited(t *testing.T, f *Fetcher) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := f.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

func good(w http.ResponseWriter, r *http.Request) { w.Write([]byte(someDigest + "  app_1\n")) }

func TestWaitPolls(t *testing.T) {
	inBubble(t, Options{PollInterval: time.Hour, RandomizedDelay: 10 * time.Minute}, good, func(t *testing.T, f *Fetcher) {
		if got := waited(t, f); got != 0 {
			t.Errorf("waited %v before the first check", got)
		}
		different := map[time.Duration]bool{}
		for range 20 {
			mustCheck(t, f)
			got := waited(t, f)
			if got < time.Hour || got > 70*time.Minute {
				t.Errorf("waited %v, want an hour and up to ten minutes", got)
			}
			different[got] = true
		}
		if len(different) < 15 {
			t.Errorf("only %d of 20 waits differ", len(different))
		}
	})
}

func TestWaitBacksOff(t *testing.T) {
	var status int
	var retryAfter string
	answer := func(w http.ResponseWriter, r *http.Request) {
		if status == 200 {
			good(w, r)
			return
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(status)
	}
	inBubble(t, Options{PollInterval: 15 * time.Minute}, answer, func(t *testing.T, f *Fetcher) {
		fails := func(code fault.Code) {
			t.Helper()
			_, err := f.Check(context.Background())
			wantCode(t, err, code)
		}
		between := func(low, high time.Duration) {
			t.Helper()
			if got := waited(t, f); got < low || got > high {
				t.Errorf("waited %v, want %v to %v", got, low, high)
			}
		}
		status = 503
		for full := time.Second; full < 15*time.Minute; full *= 2 {
			fails(fault.Server)
			between(full/2, full)
		}
		for range 50 { // and does not overflow
			fails(fault.Server)
			between(15*time.Minute/2, 15*time.Minute)
		}
		status = 200
		mustCheck(t, f)
		between(15*time.Minute, 15*time.Minute)
		status = 503
		fails(fault.Server)
		between(time.Second/2, time.Second)

		retryAfter = "120"
		fails(fault.Server)
		between(2*time.Minute, 2*time.Minute)
		retryAfter = "86400"
		fails(fault.Server)
		between(time.Hour, time.Hour)
		retryAfter = "0"
		fails(fault.Server)
		between(4*time.Second, 8*time.Second)

		status, retryAfter = 403, "" // asking again soon would look like an attack
		fails(fault.Denied)
		between(15*time.Minute, 15*time.Minute)

		// A failed cycle followed by a wait without any: the next is quiet.
		between(15*time.Minute, 15*time.Minute)
	})
}

// TestWaitRemembersAFailedFetch although the check before it went well.
func TestWaitRemembersAFailedFetch(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/app_1" {
			w.WriteHeader(502)
			return
		}
		good(w, r)
	}
	inBubble(t, Options{}, answer, func(t *testing.T, f *Fetcher) {
		for full := time.Second; full < 2*time.Minute; full *= 2 {
			_, err := f.Fetch(context.Background(), newest(t, f), t.TempDir(), nil)
			wantCode(t, err, fault.Server)
			if got := waited(t, f); got < full/2 || got > full {
				t.Errorf("waited %v, want %v to %v", got, full/2, full)
			}
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	inBubble(t, Options{}, good, func(t *testing.T, f *Fetcher) {
		mustCheck(t, f)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin := time.Now()
		err := f.Wait(ctx)
		wantCode(t, err, fault.Canceled)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		// Being told to stop is no failure of the source.
		if _, err := f.Check(ctx); fault.CodeOf(err) != fault.Canceled {
			t.Error(err)
		}
		if got := waited(t, f); got != PollIntervalDefault {
			t.Errorf("waited %v", got)
		}
	})
}

// TestWaitOnADirectory is the loop of doc.go, with real inotify.
func TestWaitOnADirectory(t *testing.T) {
	leaks(t)
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	f := mustNew(t, s.options())
	if err := f.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, f)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	wantCode(t, f.Wait(ctx), fault.Canceled)
	cancel()

	woken := make(chan error, 1)
	go func() { woken <- f.Wait(context.Background()) }()
	time.Sleep(100 * time.Millisecond)
	s.release("app_2.bin", []byte("two"))
	select {
	case err := <-woken:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a release went unnoticed")
	}
	if c := newest(t, f); c.Version != "2" {
		t.Errorf("newest is %v", c)
	}

	// A failed check is repeated by itself when that can help.
	if err := os.Rename(filepath.Join(s.dir, manifestName), filepath.Join(s.dir, "hidden")); err != nil {
		t.Fatal(err)
	}
	_, err := f.Check(context.Background())
	wantCode(t, err, fault.MetaMissing)
	if got := waited(t, f); got > 2*time.Second {
		t.Errorf("waited %v after a failure", got)
	}
}
