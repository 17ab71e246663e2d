package fetcher

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
)

// BenchmarkFetch100MiB compares the whole way of a release (manifest, signature,
// transfer, SHA-256, fsync, rename, fsync of the directory) with the loop that
// one would write first: read a buffer, hash it, write it, and fsync at the
// end. Both get the same bytes from the same server, a process of its own, and
// take turns, so that the disk's mood is the same for both.
func BenchmarkFetch100MiB(b *testing.B) {
	const size = 100 << 20
	server := startBenchServer(b, size)
	dir := b.TempDir()
	var pipeline, control time.Duration
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		begin := time.Now()
		into := filepath.Join(dir, fmt.Sprint("pipeline", i))
		server.fetch(b, into)
		pipeline += time.Since(begin)
		os.RemoveAll(into)

		begin = time.Now()
		name := filepath.Join(dir, fmt.Sprint("control", i))
		server.plainLoop(b, name)
		control += time.Since(begin)
		os.Remove(name)
	}
	b.ReportMetric(float64(pipeline.Milliseconds())/float64(b.N), "pipeline-ms/op")
	b.ReportMetric(float64(control.Milliseconds())/float64(b.N), "control-ms/op")
	b.ReportMetric(pipeline.Seconds()/control.Seconds(), "ratio")
}

// benchServer is a child process that serves one signed release from memory.
type benchServer struct {
	url string
	key string
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
	return benchServer{url: words[0], key: words[1]}
}

// benchServe is the child: it prints URL and key, and serves until its standard
// input ends.
func benchServe(size int) error {
	artifact := make([]byte, size)
	rand.Read(artifact)
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	manifest := fmt.Appendf(nil, "%x  app_1.bin\n", sha256.Sum256(artifact))
	files := map[string][]byte{
		"/app_1.bin":        artifact,
		"/" + manifestName:  manifest,
		"/" + signatureName: minisign.Sign(private, manifest),
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(file)))
		w.Write(file)
	}))
	fmt.Printf("http://%s %s\n", listener.Addr(), public)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func (s benchServer) fetch(b *testing.B, into string) {
	b.Helper()
	if err := os.Mkdir(into, 0o700); err != nil {
		b.Fatal(err)
	}
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

func (s benchServer) plainLoop(b *testing.B, name string) {
	b.Helper()
	resp, err := http.Get(s.url + "/app_1.bin")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	file, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	buf := make([]byte, 32<<10) // what io.Copy takes
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
