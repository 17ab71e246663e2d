// Command tableflip is the example program of cloudflare/tableflip, moved: see
// docs/porting/tableflip.md.
package main

import (
	"fmt"
	"log"
	"net/http"

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
	if err := upg.Ready(); err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "hello from %s\n", version)
	})}
	if err := upg.Serve(&server, ln); err != nil {
		log.Print(err)
	}
}
