// Command stream is a service of the tests whose answers take as long as their
// clients: connections that were upgraded, as those of WebSockets are, streams of
// HTTP/2 with trailers, as gRPC has, and uploads. It says its version in each answer.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/upgraderd/upgraderd/activation"
)

var version = "dev"

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, version) })
	mux.HandleFunc("GET /upgraded", upgraded)
	mux.HandleFunc("POST /stream", stream)
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s: %d bytes, %v", version, n, err)
	})
	server := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if err := activation.Serve(ctx, activation.Server{HTTP: server}); err != nil {
		log.Fatal(err)
	}
}

// upgraded takes the connection over, and answers each line.
func upgraded(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	for lines := bufio.NewScanner(rw); lines.Scan(); {
		fmt.Fprintf(c, "%s: %s\n", version, lines.Text())
	}
}

// stream answers each line of the request, and ends with a trailer.
func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "Status")
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		fmt.Fprintf(w, "%s: %s\n", version, lines.Text())
		_ = flush.Flush()
	}
	w.Header().Set("Status", "0")
}
