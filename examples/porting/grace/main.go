// Command grace is a program of facebookgo/grace with two servers, moved: see
// docs/porting/endless.md. GET /sleep?for=1s answers after that time.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// version is set when a release is built: go build -ldflags '-X main.version=1'.
var version = "0"

func handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "%s, version %s\n", name, version)
	})
	mux.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		time.Sleep(d)
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "%s, version %s, slept for %s\n", name, version, d)
	})
	return mux
}

func main() {
	if version == "bad" {
		log.Fatal("this release is no good")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := activation.Serve(ctx,
		activation.Server{HTTP: &http.Server{Addr: "127.0.0.1:8080", Handler: handler("a")}, Name: "a"},
		activation.Server{HTTP: &http.Server{Addr: "127.0.0.1:8081", Handler: handler("b")}, Name: "b"},
	); err != nil {
		log.Fatal(err)
	}
}
