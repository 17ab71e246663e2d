package fetcher

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// shelve has the files of a shop be from yesterday, for a server of real time.
func (s *shop) shelve() {
	s.t.Helper()
	yesterday := time.Now().Add(-24 * time.Hour)
	for _, name := range names(s.t, s.dir) {
		if err := os.Chtimes(filepath.Join(s.dir, name), yesterday, yesterday); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestNginxGoesOnAfterAKill ends the process in the middle with SIGKILL; the next
// one asks a real nginx for the rest of the same file, and for all of another.
func TestNginxGoesOnAfterAKill(t *testing.T) {
	for _, c := range []struct {
		name    string
		replace bool
		status  string
	}{
		{"the same file", false, "206"},
		{"a copy of later", true, "200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			whole := noise(t, 4<<20)
			s.release("app_1.bin", whole)
			s.shelve()
			server := sourcetest.StartNginx(t, s.dir, "", `limit_rate_after 1m; if ($http_range = "") { set $limit_rate 32k; }`)
			o := s.options()
			o.Path = "http://" + server.Addr
			into := t.TempDir()
			task, err := json.Marshal(errand{Options: o, Into: into})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), errandEnv+"="+string(task))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			size := int64(0)
			for begin := time.Now(); size < 512<<10 && time.Since(begin) < time.Minute; time.Sleep(10 * time.Millisecond) {
				if part, _ := filepath.Glob(filepath.Join(into, "*.part")); len(part) == 1 {
					if st, err := os.Stat(part[0]); err == nil {
						size = st.Size()
					}
				}
			}
			cmd.Process.Kill()
			cmd.Wait()
			part, err := filepath.Glob(filepath.Join(into, "*.part"))
			if err != nil || len(part) != 1 {
				t.Fatalf("parts %q, %v", part, err)
			}
			st, err := os.Stat(part[0])
			if err != nil || st.Size() < 512<<10 || st.Size() >= int64(len(whole)) {
				t.Fatalf("after kill -9 the part has %d bytes, %v", st.Size(), err)
			}
			if c.replace {
				now := time.Now().Add(-time.Hour)
				if err := os.Chtimes(filepath.Join(s.dir, "app_1.bin"), now, now); err != nil {
					t.Fatal(err)
				}
			}
			f := mustNew(t, o)
			if v := mustFetch(t, f, newest(t, f), into); !bytes.Equal(content(t, v), whole) {
				t.Error("the artifact is not what was published")
			}
			asked := slices.DeleteFunc(server.Asked(t, 6), func(line string) bool { return !strings.Contains(line, "bytes=") })
			want := fmt.Sprintf("GET /app_1.bin %s %d \"bytes=%d-\" \"\\x22", c.status, len(whole)-int(st.Size()), st.Size())
			if c.replace {
				want = fmt.Sprintf("GET /app_1.bin %s %d \"bytes=%d-\" \"\\x22", c.status, len(whole), st.Size())
			}
			if len(asked) != 1 || !strings.HasPrefix(asked[0], want) {
				t.Errorf("asked %q, want %q", asked, want)
			}
		})
	}
}

// TestNginxUnchanged looks again where nothing is new, and where something is.
func TestNginxUnchanged(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	s.shelve()
	for _, c := range []struct {
		name, more string
		want       []string
	}{
		{"by ETag", "", []string{"GET /SHA256SUMS 304 0 ", "GET /SHA256SUMS.minisig 304 0 "}},
		{"by date", "etag off;", []string{"GET /SHA256SUMS 304 0 ", "GET /SHA256SUMS.minisig 304 0 "}},
		{"by nothing", "etag off; add_header Last-Modified \"\";", []string{"GET /SHA256SUMS 200 ", "GET /SHA256SUMS.minisig 200 "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := sourcetest.StartNginx(t, s.dir, "", c.more)
			o := s.options()
			o.Path = "http://" + server.Addr
			f := mustNew(t, o)
			mustCheck(t, f)
			if got := newest(t, f); got.Version != "1" {
				t.Errorf("newest is %+v", got)
			}
			asked := server.Asked(t, 4)[2:]
			if !slices.EqualFunc(asked, c.want, strings.HasPrefix) {
				t.Errorf("asked %q, want %q", asked, c.want)
			}
		})
	}
}
