// Command endless is a program of fvbock/endless, or of facebookgo/grace, moved: see
// docs/porting/endless.md.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/upgraderd/upgraderd/activation"
)

// version is set when a release is built: go build -ldflags '-X main.version=1'.
var version = "0"

func main() {
	if version == "bad" {
		log.Fatal("this release is no good")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "hello from %s\n", version)
	})
	if err := activation.ListenAndServe("127.0.0.1:8080", mux); err != nil {
		log.Fatal(err)
	}
}
