package fetcher

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

func mkfifo(name string) error { return unix.Mkfifo(name, 0o600) }

// errand is a Check and a Fetch that need a process of their own: for its
// environment, which net/http reads once, or its mounts.
type errand struct {
	Options Options
	// Into is where to fetch to. Empty: check only.
	Into string
	// Base is a file that patches may start from.
	Base string
	// TmpfsMiB mounts a file system of that size at Into first. Inodes limits
	// how many files it holds, 0 for no limit.
	TmpfsMiB, Inodes int
	ReadOnly         bool
	// Hosts is the content of /etc/hosts. Empty: as it is.
	Hosts string
	// DNS has the resolver be one that answers with this code, or never where
	// that is below 0, on a network where nothing else is. Nil: as it is.
	DNS *int
}

// outcome is what the child prints.
type outcome struct {
	Code  fault.Code
	Error string
	Left  []string // in Into
}

const errandEnv = "FETCHER_TEST_ERRAND"

func (e errand) run(t *testing.T, env ...string) outcome {
	t.Helper()
	task, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(append(os.Environ(), errandEnv+"="+string(task)), env...)
	if e.alters() {
		// Mounts of its own, as root or as anybody.
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if e.DNS != nil {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
		}
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("errand: %v: %s", err, complaint.String())
	}
	var got outcome
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("errand said %q: %v", out, err)
	}
	return got
}

// alters tells whether the child sees another system than its parent.
func (e errand) alters() bool { return e.TmpfsMiB > 0 || e.Hosts != "" || e.DNS != nil }

// do is the child's side.
func (e errand) do() (outcome, error) {
	if e.alters() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return outcome{}, fmt.Errorf("make mounts private: %w", err)
		}
		if err := e.name(); err != nil {
			return outcome{}, err
		}
	}
	if e.TmpfsMiB > 0 {
		data := fmt.Sprintf("size=%dm,mode=700", e.TmpfsMiB)
		if e.Inodes > 0 {
			data += fmt.Sprintf(",nr_inodes=%d", e.Inodes)
		}
		flags := uintptr(0)
		if e.ReadOnly {
			flags = unix.MS_RDONLY
		}
		if err := unix.Mount("tmpfs", e.Into, "tmpfs", flags, data); err != nil {
			return outcome{}, fmt.Errorf("mount tmpfs: %w", err)
		}
	}
	got := outcome{}
	err := e.errand()
	if err != nil {
		got.Code, got.Error = fault.CodeOf(err), err.Error()
	}
	if e.Into != "" {
		entries, err := os.ReadDir(e.Into)
		if err != nil {
			return outcome{}, err
		}
		for _, entry := range entries {
			got.Left = append(got.Left, entry.Name())
		}
	}
	return got, nil
}

func (e errand) errand() error {
	ctx := context.Background()
	if e.Base != "" {
		e.Options.Bases = func(_ context.Context, wanted [][32]byte) (map[[32]byte]string, error) {
			content, err := os.ReadFile(e.Base)
			return map[[32]byte]string{sha256.Sum256(content): e.Base}, err
		}
	}
	f, err := New(e.Options, nil)
	if err != nil {
		return err
	}
	listing, err := f.Check(ctx)
	if err != nil || e.Into == "" {
		return err
	}
	v, err := f.Fetch(ctx, listing.Candidates[0], e.Into, nil)
	if err != nil {
		return err
	}
	return v.Close()
}

// TestFetchOntoAFullDisk fills real file systems in each way there is.
func TestFetchOntoAFullDisk(t *testing.T) {
	s := newShop(t)
	s.release("app_1.bin", noise(t, 20<<20))
	server := s.serve()
	server.before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app_1.bin" {
			return false
		}
		// In chunks, so that nobody knows the size before.
		for range 200 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				break
			}
			http.NewResponseController(w).Flush()
		}
		return true
	})
	unknown := s.options()
	unknown.Path = server.URL
	for _, c := range []struct {
		name string
		e    errand
		code fault.Code
		says string
	}{
		{"enough", errand{Options: s.options(), TmpfsMiB: 110}, "", ""},
		{"room for the artifact, not to unpack it", errand{Options: s.options(), TmpfsMiB: 90}, fault.NoSpace, "104 MiB are needed, 90 MiB are free"},
		{"no room for the reserve", errand{Options: unknown, TmpfsMiB: 60}, fault.NoSpace, "64 MiB are needed, 60 MiB are free"},
		{"full in the middle", errand{Options: unknown, TmpfsMiB: 70}, fault.NoSpace, "no space left on device"},
		{"one inode: for the part, not for its mark", errand{Options: s.options(), TmpfsMiB: 110, Inodes: 2}, fault.NoInodes, "df -i"},
		{"no inode", errand{Options: s.options(), TmpfsMiB: 110, Inodes: 1}, fault.NoInodes, "df -i"},
		{"read-only", errand{Options: s.options(), TmpfsMiB: 110, ReadOnly: true}, fault.ReadOnly, "writable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.e.Into = t.TempDir()
			got := c.e.run(t)
			if got.Code != c.code || !strings.Contains(got.Error, c.says) {
				t.Errorf("%s: %s; want %s, %q", got.Code, got.Error, c.code, c.says)
			}
			if c.code != "" && len(got.Left) != 0 {
				t.Errorf("left %q", got.Left)
			}
		})
	}
}

// TestProxy goes by the proxy that the environment names.
func TestProxy(t *testing.T) {
	const password = "s3cr3t-canary"
	s := newShop(t)
	s.release("app_1.bin", []byte("one"))
	files := http.FileServer(http.Dir(s.dir))
	var authorized, allow atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorized.Store(r.Header.Get("Proxy-Authorization") != "")
		if !allow.Load() || r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := hung.Addr().String()
	hung.Close()

	o := s.options()
	with := strings.Replace(proxy.URL, "//", "//user:"+password+"@", 1)
	for _, c := range []struct {
		name, path, env string
		allow           bool
		code            fault.Code
	}{
		{"used", "http://example.org/", "HTTP_PROXY=" + with, true, ""},
		{"refuses http", "http://example.org/", "HTTP_PROXY=" + with, false, fault.Proxy},
		{"refuses https", "https://example.org/", "HTTPS_PROXY=" + with, false, fault.Proxy},
		{"is not there, http", "http://example.org/", "HTTP_PROXY=http://user:" + password + "@" + dead, true, fault.Proxy},
		{"is not there, https", "https://example.org/", "HTTPS_PROXY=http://user:" + password + "@" + dead, true, fault.Proxy},
		{"has no such name", "http://example.org/", "HTTP_PROXY=http://user:" + password + "@no-such-host.invalid", true, fault.Proxy},
		{"is no URL", "http://example.org/", "HTTP_PROXY=http://user:" + password + "@[", true, fault.Proxy},
	} {
		t.Run(c.name, func(t *testing.T) {
			allow.Store(c.allow)
			authorized.Store(false)
			o.Path = c.path
			e := errand{Options: o}
			if c.code == "" {
				e.Into = t.TempDir()
			}
			got := e.run(t, "NO_PROXY=", "no_proxy=", c.env)
			if got.Code != c.code || strings.Contains(got.Error, password) {
				t.Errorf("%s: %s; want %s", got.Code, got.Error, c.code)
			}
			if c.code == "" && !authorized.Load() {
				t.Error("the proxy did not get its password")
			}
		})
	}
}

// TestFetchGoesOnAfterAKill ends the process in the middle with SIGKILL.
func TestFetchGoesOnAfterAKill(t *testing.T) {
	s := newShop(t)
	whole := noise(t, 30<<20)
	s.release("app_1.bin", whole)
	server := s.serve()
	got := make(chan struct{}, 1)
	server.before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/app_1.bin" || r.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		w.Write(whole[:20<<20])
		http.NewResponseController(w).Flush()
		got <- struct{}{}
		<-r.Context().Done()
		return true
	})
	o := s.options()
	o.Path = server.URL
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
	<-got
	time.Sleep(300 * time.Millisecond) // what arrived is written
	cmd.Process.Kill()
	cmd.Wait()

	part, err := filepath.Glob(filepath.Join(into, "*.part"))
	if err != nil || len(part) != 1 {
		t.Fatalf("parts %q, %v", part, err)
	}
	st, err := os.Stat(part[0])
	if err != nil || st.Size() < 15<<20 {
		t.Fatalf("after kill -9 the part has %d bytes, %v", st.Size(), err)
	}
	server.asked()
	f := mustNew(t, o)
	v := mustFetch(t, f, newest(t, f), into)
	if sum, want := content(t, v), whole; string(sum) != string(want) {
		t.Error("the artifact is not what was published")
	}
	if asked := server.asked(); len(asked) != 3 || !strings.HasPrefix(asked[2], fmt.Sprintf("/app_1.bin bytes=%d- 206", st.Size())) {
		t.Errorf("asked %q, want to go on from %d", asked, st.Size())
	}
}
