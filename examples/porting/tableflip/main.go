// Command tableflip is the example program of cloudflare/tableflip, moved: see
// docs/porting/tableflip.md.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/upgraderd/upgraderd/activation/tableflip"
)

// version is set when a release is built: go build -ldflags '-X main.version=1'.
var version = "0"

func main() {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer upg.Stop()
	if version == "bad" {
		log.Fatal("this release is no good")
	}

	ln, err := upg.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()

	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "hello from %s\n", version)
	})}
	go func() {
		if err := server.Serve(ln); err != http.ErrServerClosed {
			log.Print(err)
		}
	}()
	if err := upg.Ready(); err != nil {
		log.Fatal(err)
	}
	<-upg.Exit()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Print(err)
	}
}
