package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// fault is set when a release is built that is to go wrong, for the demo and
// the tests: go build -ldflags '-X main.fault=unready'. A delay stands after a
// colon: slow:2s.
//
//	crash           ends at start
//	unready         starts, and never says that it is ready
//	slow:TIME       is ready after that time
//	crash-later:TIME  is ready, and ends by itself after that time
//	sicken:TIME     is ready, and /healthz says 500 after that time
//	stubborn        ignores the request to stop
//	fragile         is ready, and crashes with its first request
//	deaf            is ready, and answers on the first of its sockets only
//	daemonize       goes into the background, and its process ends with 0
//	scribble        writes wherever it should not, or tries to
var fault = ""

// misbehave does what fault says, and returns the handler of /healthz.
func misbehave(ctx context.Context) http.Handler {
	kind, text, _ := strings.Cut(fault, ":")
	delay, err := time.ParseDuration(text)
	if text != "" && err != nil {
		log.Fatalf("fault %q: %v", fault, err)
	}
	var sick atomic.Bool
	switch kind {
	case "":
	case "crash":
		log.Fatal("built to crash at start")
	case "unready":
		<-ctx.Done()
		os.Exit(0)
	case "slow":
		time.Sleep(delay)
	case "crash-later":
		time.AfterFunc(delay, func() { log.Fatal("built to crash later") })
	case "sicken":
		time.AfterFunc(delay, func() { sick.Store(true) })
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "fragile", "deaf":
	case "daemonize":
		daemonize()
	case "scribble":
		scribble()
	default:
		log.Fatalf("fault %q is not known", fault)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Version", version)
		if sick.Load() {
			http.Error(w, "built to turn bad", http.StatusInternalServerError)
		}
	})
}

// stumble is what goes wrong with a request.
func stumble(ctx context.Context, r *http.Request) {
	switch fault {
	case "fragile":
		log.Fatal("built to crash with its first request")
	case "deaf":
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && !strings.HasSuffix(a.String(), ":8080") {
			<-ctx.Done()
		}
	}
}

// daemonize leaves the work to a child in a session of its own.
func daemonize() {
	const child = "HELLO_CHILD"
	if os.Getenv(child) != "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}

// scribble tries its own program, its release, the store, and the system.
func scribble() {
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	release := filepath.Dir(filepath.Dir(self))
	store := filepath.Dir(filepath.Dir(release))
	for _, name := range []string{
		self, filepath.Join(release, "new"), filepath.Join(store, "order.json"), filepath.Join(store, "wishes.json"), filepath.Join(store, "record.json"),
		filepath.Join(store, "releases", "new"), "/etc/upgraderd/hello.upgrade", "/usr/bin/upgraderd", "/etc/new",
	} {
		if err := os.WriteFile(name, []byte("scribbled"), 0o755); err == nil {
			log.Printf("wrote %s", name)
		}
	}
	for _, link := range []string{"current", "next", "staged"} {
		if err := os.Remove(filepath.Join(store, link)); err == nil {
			log.Printf("removed %s", link)
		}
	}
}
