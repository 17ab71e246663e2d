// Command overseer is the example program of github.com/jpillora/overseer, moved:
// see docs/porting/overseer.md.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/upgraderd/upgraderd/activation/overseer"
	"github.com/upgraderd/upgraderd/activation/overseer/fetcher"
)

// version is set when a release is built: go build -ldflags '-X main.version=1'.
var version = "0"

func main() {
	next := flag.String("fetch", "/srv/app/app.next", "where the next binary appears")
	flag.Parse()
	overseer.Run(overseer.Config{
		Program: prog,
		Address: "127.0.0.1:8080",
		Fetcher: &fetcher.File{Path: *next},
	})
}

// prog runs in the worker.
func prog(state overseer.State) {
	if version == "bad" {
		log.Fatal("this release is no good")
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.URL.Query().Get("d"))
		time.Sleep(d)
		w.Header().Set("X-Version", version)
		fmt.Fprintf(w, "app %s (%s) says hello\n", version, state.ID)
	})
	if err := overseer.HttpServe(state.Listener, nil); err != nil {
		log.Print(err)
	}
}
