// Command hello is a service that can be upgraded while it serves. Everything
// that takes is in main: sockets by name, ready when listening, drained when
// told to stop. It runs as well on its own, without systemd.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/upgraderd/upgraderd/activation"
)

// version is set when a release is built: go build -ldflags '-X main.version=1.0.0'.
var version = "dev"

func main() {
	log.SetFlags(0)
	address := flag.String("address", "127.0.0.1:8080", "listen here when no socket was passed")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		stumble(ctx, r)
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "hello from %s\n", version)
	})
	mux.Handle("GET /healthz", misbehave(ctx))

	server := activation.Server{HTTP: &http.Server{Addr: *address, Handler: mux}}
	if err := activation.Serve(ctx, server); err != nil {
		log.Fatal(err)
	}
}
