package activation_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// A program of a line for each address, started with the sockets for both: each line
// finds its own, whatever the order, and SIGTERM ends them.
func TestListenAndServe(t *testing.T) {
	one, two := listenTCP(t), listenTCP(t)
	cert, key := selfSigned(t)
	c := start(t, "oneline", []passed{{"a", fileOf(t, two)}, {"b", fileOf(t, one)}},
		"ONE="+one.Addr().String(), "TWO="+two.Addr().String(), "CERT="+cert, "KEY="+key)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: insecure(), DisableKeepAlives: true}, Timeout: 20 * time.Second}
	for url, want := range map[string]string{"http://" + one.Addr().String(): "one", "https://" + two.Addr().String(): "two"} {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatalf("%v: %s", err, c.err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != want {
			t.Errorf("%s: got %q, want %q", url, b, want)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.finish(t)
}

func childOneline() error {
	says := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) })
	}
	var all sync.WaitGroup
	errs := make(chan error, 2)
	all.Go(func() { errs <- activation.ListenAndServe(os.Getenv("ONE"), says("one")) })
	all.Go(func() {
		errs <- activation.ListenAndServeTLS(os.Getenv("TWO"), os.Getenv("CERT"), os.Getenv("KEY"), says("two"))
	})
	all.Wait()
	if err := <-errs; err != nil {
		return err
	}
	return <-errs
}
