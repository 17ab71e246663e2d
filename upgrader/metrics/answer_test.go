package metrics

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnswer(t *testing.T) {
	for _, tc := range []struct{ request, want string }{
		{"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK"},
		{"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"},
		{"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK"},
		{"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found"},
		{"hello\r\n\r\n", ""},
		{"GET /" + strings.Repeat("x", 2*requestMax) + " HTTP/1.1\r\n\r\n", ""},
	} {
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- Answer(server, host)
			server.Close()
		}()
		go func() { _, _ = client.Write([]byte(tc.request)) }()
		var got strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := client.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				break
			}
		}
		err := <-done
		status, rest, _ := strings.Cut(got.String(), "\r\n")
		if status != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%.40q: got %q, %v; want %q", tc.request, status, err, tc.want)
		}
		full := strings.HasPrefix(tc.request, http.MethodGet) && strings.HasSuffix(tc.want, "OK")
		if strings.Contains(rest, "\nupgraderd_build_info{") != full {
			t.Errorf("%.40q: got %q", tc.request, rest)
		}
	}
}

// Who says nothing is not waited for.
func TestAnswerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		if err := Answer(server, host); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "upgraderd.prom")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		news := make(chan struct{}, 1)
		var version atomic.Value // a timer that wakes Keep orders no write before its read
		version.Store("1")
		var errs []error
		done := make(chan struct{})
		go func() {
			defer close(done)
			Keep(ctx, file, news, func() Host { return Host{Version: version.Load().(string)} }, func(err error) { errs = append(errs, err) })
		}()
		holds := func(want string) {
			t.Helper()
			synctest.Wait()
			data, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(data), `{version="`+want+`"`) {
				t.Errorf("want version %s, got %v %q", want, err, data)
			}
		}
		holds("1")
		version.Store("2")
		news <- struct{}{}
		holds("1") // it was written a moment ago
		time.Sleep(textfileRest)
		holds("2")
		version.Store("3")
		time.Sleep(textfileEvery)
		holds("3")
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		info, err := os.Stat(file)
		if err != nil || info.Mode() != 0o644 {
			t.Errorf("%v, %v", info, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%v, %v", left, err)
		}
	})
	if err := WriteFile(filepath.Join(dir, "nowhere", "a.prom"), Host{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
