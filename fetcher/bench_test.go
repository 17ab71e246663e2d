package fetcher

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/test/publish"
)

// BenchmarkFetch100MiB compares the whole way of a release (manifest, signature,
// transfer, SHA-256, fsync, rename, fsync of the directory) with the loop that
// one would write first: read a buffer, hash it, write it, and fsync at the
// end. All get the same bytes from the same server, a process of its own, and
// take turns, so that the disk's mood is the same for each.
//
//	ratio       pipeline / loop with the buffer of io.Copy, 32 KiB
//	ratio-1MiB  pipeline / loop with the buffer that suits it best
//
// Two processors, ext4 on NVMe: 0.42 and 0.63. TMPDIR says which disk.
func BenchmarkFetch100MiB(b *testing.B) {
	const size = 100 << 20
	server := startBenchServer(b, size)
	dir := b.TempDir()
	var pipeline, control, large time.Duration
	b.SetBytes(size)
	for b.Loop() {
		pipeline += timed(dir, func(into string) { server.fetch(b, into) })
		control += timed(dir, func(into string) { server.plainLoop(b, into, 32<<10) })
		large += timed(dir, func(into string) { server.plainLoop(b, into, 1<<20) })
	}
	b.ReportMetric(float64(pipeline.Milliseconds())/float64(b.N), "pipeline-ms")
	b.ReportMetric(float64(control.Milliseconds())/float64(b.N), "control-ms")
	b.ReportMetric(float64(large.Milliseconds())/float64(b.N), "control-1MiB-ms")
	b.ReportMetric(pipeline.Seconds()/control.Seconds(), "ratio")
	b.ReportMetric(pipeline.Seconds()/large.Seconds(), "ratio-1MiB")
}

// BenchmarkFetchTUF100MiB compares a release that TUF vouches for with one that
// minisign does, from the first look of a host that follows them on: four files of
// metadata and what is kept of them, against a list and its signature.
func BenchmarkFetchTUF100MiB(b *testing.B) {
	program := make([]byte, 100<<20)
	rand.Read(program)
	r := newRepository(b)
	r.list("targets", "app_1.bin", program)
	r.publish()
	public, private, err := minisign.GenerateKey(rand.Reader)
	r.ok(err)
	list := fmt.Appendf(nil, "%x  app_1.bin\n", sha256.Sum256(program))
	r.put("app_1.bin", program)
	r.put("SHA256SUMS", list)
	r.put("SHA256SUMS.minisig", minisign.Sign(private, list))
	byTUF := r.options()
	signed := Options{Target: "app", Path: r.dir, Patterns: byTUF.Patterns, Keys: []string{public.String()}}
	fetch := func(o Options) func(into string) {
		return func(into string) {
			f, err := New(o, nil)
			r.ok(err)
			defer f.Close()
			listing, err := f.Check(b.Context())
			r.ok(err)
			v, err := f.Fetch(b.Context(), listing.Candidates[0], into, nil)
			r.ok(err)
			r.ok(v.Close())
		}
	}
	dir := b.TempDir()
	var tuf, minisign time.Duration
	b.SetBytes(int64(len(program)))
	for b.Loop() {
		r.ok(os.RemoveAll(byTUF.StateDir))
		tuf += timed(dir, fetch(byTUF))
		minisign += timed(dir, fetch(signed))
	}
	b.ReportMetric(float64(tuf.Milliseconds())/float64(b.N), "tuf-ms")
	b.ReportMetric(float64(minisign.Milliseconds())/float64(b.N), "minisign-ms")
	b.ReportMetric(tuf.Seconds()/minisign.Seconds(), "ratio")
}

func timed(dir string, do func(into string)) time.Duration {
	into := filepath.Join(dir, "into")
	if err := os.Mkdir(into, 0o700); err != nil {
		panic(err)
	}
	defer os.RemoveAll(into)
	begin := time.Now()
	do(into)
	return time.Since(begin)
}

// BenchmarkFetchMemory shows the largest heap while a release is fetched: the
// same for 100 MiB and for 1 GiB.
func BenchmarkFetchMemory(b *testing.B) {
	for _, size := range []int{100 << 20, 1 << 30} {
		b.Run(fmt.Sprint(size>>20, "MiB"), func(b *testing.B) {
			server := startBenchServer(b, size)
			dir := b.TempDir()
			b.SetBytes(int64(size))
			var peak uint64
			for b.Loop() {
				stop := make(chan struct{})
				seen := make(chan uint64)
				go watchHeap(stop, seen)
				timed(dir, func(into string) { server.fetch(b, into) })
				close(stop)
				peak = max(peak, <-seen)
			}
			b.ReportMetric(float64(peak)/(1<<20), "peak-heap-MiB")
		})
	}
}

// BenchmarkCheckUnchanged looks at a source in which nothing is new: what each of a
// fleet costs it every few minutes, and this host. wire-B are the bytes of both
// directions, with those of TLS, without those of TCP.
func BenchmarkCheckUnchanged(b *testing.B) {
	for _, scheme := range []string{"http", "https"} {
		b.Run(scheme, func(b *testing.B) {
			server := startBenchServer(b, 1<<20)
			o := Options{Target: "app", Path: server.url, Patterns: []string{"app_@v.bin"}, Keys: []string{server.key}}
			if scheme == "https" {
				o.Path, o.CAFile = server.secure, server.authority
			}
			f, err := New(o, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			check := func(unchanged bool) {
				f.Close() // minutes lie between two looks, and no connection lasts so long
				listing, err := f.Check(b.Context())
				if err != nil || listing.Unchanged != unchanged || len(listing.Candidates) != 1 {
					b.Fatalf("got %+v, %v", listing, err)
				}
			}
			check(false)
			check(true) // from here on, TLS has a session to go on with
			before := server.wire(b)
			b.ReportAllocs()
			for b.Loop() {
				check(true)
			}
			b.ReportMetric(float64(server.wire(b)-before)/float64(b.N), "wire-B")
		})
	}
}

// watchHeap gives the most memory that heap objects took until stop.
func watchHeap(stop <-chan struct{}, seen chan<- uint64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	var peak uint64
	for {
		metrics.Read(sample)
		peak = max(peak, sample[0].Value.Uint64())
		select {
		case <-stop:
			seen <- peak
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// benchServer is a child process that serves one signed release from memory.
type benchServer struct {
	url, secure string // the same by http and https
	key         string
	authority   string // a file, for https
	count       string // URL of the number of bytes on the wire so far
}

const benchServerEnv = "FETCHER_TEST_SERVE"

func startBenchServer(b *testing.B, size int) benchServer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"="+strconv.Itoa(size))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // its end ends the server
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	words := strings.Fields(line)
	return benchServer{url: words[0], secure: words[1], key: words[2], authority: words[3], count: words[4]}
}

// wire is how many bytes went over the wire so far.
func (s benchServer) wire(b *testing.B) int64 {
	b.Helper()
	resp, err := http.Get(s.count)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var n int64
	if _, err := fmt.Fscan(resp.Body, &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// metered counts what its connections carry.
type metered struct {
	net.Listener
	bytes *atomic.Int64
}

func (l metered) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return meteredConn{c, l.bytes}, err
}

type meteredConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// benchServe is the child: it prints URL and key, and serves until its standard
// input ends. The artifact is one block again and again.
func benchServe(size int) error {
	block := make([]byte, 4<<20)
	rand.Read(block)
	artifact := func(w io.Writer) error {
		for left := size; left > 0; left -= len(block) {
			if _, err := w.Write(block[:min(left, len(block))]); err != nil {
				return err
			}
		}
		return nil
	}
	hash := sha256.New()
	if err := artifact(hash); err != nil {
		return err
	}
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	manifest := fmt.Appendf(nil, "%x  app_1.bin\n", hash.Sum(nil))
	small := map[string][]byte{"/" + manifestName: manifest, "/" + signatureName: minisign.Sign(private, manifest)}
	published := time.Now().Add(-time.Hour)
	files := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if file, ok := small[r.URL.Path]; ok {
			w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", len(file)))) // as nginx's, from length and time
			http.ServeContent(w, r, "", published, bytes.NewReader(file))
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		artifact(w) // a client that leaves is its own business
	})
	config, authority, err := publish.TLS("127.0.0.1")
	if err != nil {
		return err
	}
	pem, err := os.CreateTemp("", "bench-*.pem")
	if err != nil {
		return err
	}
	defer os.Remove(pem.Name())
	_, err = pem.Write(authority)
	if err := errors.Join(err, pem.Close()); err != nil {
		return err
	}
	var wire atomic.Int64
	count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, wire.Load()) })
	quiet := log.New(io.Discard, "", 0)
	var addresses []any
	for _, s := range []*http.Server{{Handler: files}, {Handler: files, TLSConfig: config, ErrorLog: quiet}, {Handler: count}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses = append(addresses, listener.Addr())
		if len(addresses) < 3 {
			listener = metered{listener, &wire}
		}
		if s.TLSConfig != nil {
			go s.ServeTLS(listener, "", "")
		} else {
			go s.Serve(listener)
		}
	}
	addresses = append(addresses, public, pem.Name())
	fmt.Printf("http://%s https://%s %[4]s %[5]s http://%[3]s\n", addresses...)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func (s benchServer) fetch(b *testing.B, into string) {
	b.Helper()
	f, err := New(Options{Target: "app", Path: s.url, Patterns: []string{"app_@v.bin"}, Keys: []string{s.key}, SizeMax: 8 << 30}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	listing, err := f.Check(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	v, err := f.Fetch(context.Background(), listing.Candidates[0], into, nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}

func (s benchServer) plainLoop(b *testing.B, into string, buffer int) {
	b.Helper()
	resp, err := http.Get(s.url + "/app_1.bin")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	file, err := os.Create(filepath.Join(into, "app_1.bin"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	buf := make([]byte, buffer)
	for {
		n, err := resp.Body.Read(buf)
		hash.Write(buf[:n])
		if _, err := file.Write(buf[:n]); err != nil {
			b.Fatal(err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	hash.Sum(nil)
	if err := file.Sync(); err != nil {
		b.Fatal(err)
	}
}
