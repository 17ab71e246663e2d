package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
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
