// Package load asks a service for answers, at a rate that does not depend on
// how fast they come, and counts every request exactly once: answered, and by
// which version, or failed, and how. Nothing is retried, so that a connection
// which ends at the wrong moment is seen and not papered over, as net/http's
// client would.
//
// Two kinds of clients run beside each other: new ones, which connect, ask
// once and leave, and kept ones, which ask again and again over one connection
// and leave when an answer says "Connection: close". A crowd of new ones that
// come again and again is what a service at its limit sees.
//
// The load runs in a process of its own, a copy of the test or demo program
// (see [Serve] and [Start]), so that it can sit in a machine's network.
package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say whom to ask, and how often.
type Options struct {
	// Network and Address of the service, as for [net.Dial]. Network defaults
	// to "tcp". Required: Address.
	Network, Address string
	// Path is asked for. Default "/".
	Path string
	// Rate is how many new connections are opened per second.
	Rate int
	// Kept is how many clients keep their connection, and Pause how long each
	// waits between an answer and the next request. Pause defaults to 5 ms.
	Kept  int
	Pause time.Duration
	// Crowd is how many clients connect, ask once, leave and come again without
	// a pause: then the rate does depend on the service.
	Crowd int
	// Timeout is when a request counts as lost. Default 10 s.
	Timeout time.Duration
	// Samples asks for [Report.Samples].
	Samples bool
}

// VersionHeader is where an answer says which version gave it.
const VersionHeader = "X-Version"

// Failure is a way for a request to fail.
type Failure string

const (
	Refused Failure = "refused" // nobody listens
	Reset   Failure = "reset"   // the other side threw the connection away
	EOF     Failure = "eof"     // the connection ended in place of an answer
	Timeout Failure = "timeout"
	Status  Failure = "status" // an answer, but not a good one
	Other   Failure = "other"
)

// Report is what happened to all requests so far.
type Report struct {
	// Sent counts requests that have an outcome: Answered plus all Failed.
	Sent     int             `json:"sent"`
	Answered int             `json:"answered"`
	Failed   map[Failure]int `json:"failed"`
	// Versions counts answers by version, FirstAnswer is when each was seen
	// first.
	Versions    map[string]int       `json:"versions"`
	FirstAnswer map[string]time.Time `json:"first_answer"`
	// Errors are the first few failures in words, with a time.
	Errors []string `json:"errors"`
	// Median, P99 and Max are of the answered requests, from the start of the
	// connection (new clients) or the request (kept ones) to the end of the
	// answer.
	Median time.Duration `json:"median_ns"`
	P99    time.Duration `json:"p99_ns"`
	Max    time.Duration `json:"max_ns"`
	// Samples are the answered requests, on demand, by the time they began.
	Samples []Sample `json:"samples,omitempty"`
}

// Sample is one answered request.
type Sample struct {
	Began time.Time     `json:"t"`
	Took  time.Duration `json:"ns"`
	Kept  bool          `json:"kept,omitempty"`
}

// Failures is how many requests failed, in whatever way.
func (r Report) Failures() int { return r.Sent - r.Answered }

func (r Report) String() string {
	s := fmt.Sprintf("%d sent, %d failed", r.Sent, r.Failures())
	for _, f := range []Failure{Refused, Reset, EOF, Timeout, Status, Other} {
		if n := r.Failed[f]; n > 0 {
			s += fmt.Sprintf(", %d %s", n, f)
		}
	}
	return fmt.Sprintf("%s; by version %v; median %v, p99 %v, max %v", s, r.Versions,
		r.Median.Round(time.Microsecond), r.P99.Round(time.Microsecond), r.Max.Round(time.Microsecond))
}

// Run asks until ctx ends, waits for the answers to what is under way, and
// reports. From time to time it calls progress, if that is not nil.
func Run(ctx context.Context, o Options, progress func(Report)) Report {
	if o.Network == "" {
		o.Network = "tcp"
	}
	if o.Path == "" {
		o.Path = "/"
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Pause == 0 {
		o.Pause = 5 * time.Millisecond
	}
	g := &generator{
		Options: o,
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: load\r\n\r\n", o.Path),
		last:    fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n", o.Path),
		tally: tally{
			failed: map[Failure]int{}, versions: map[string]int{}, first: map[string]time.Time{},
		},
	}
	var clients sync.WaitGroup
	for range o.Kept {
		clients.Go(func() { g.keep(ctx) })
	}
	for range o.Crowd {
		clients.Go(func() {
			for ctx.Err() == nil {
				g.once()
			}
		})
	}
	clients.Go(func() { g.arrive(ctx, &clients) })
	if progress != nil {
		stop := make(chan struct{})
		var reporter sync.WaitGroup
		reporter.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					progress(g.report(false))
				}
			}
		})
		defer reporter.Wait()
		defer close(stop)
	}
	clients.Wait()
	return g.report(true)
}

type generator struct {
	Options
	request, last []byte
	tally
}

// tally is what is counted, under its mutex.
type tally struct {
	mu       sync.Mutex
	answered int
	failed   map[Failure]int
	versions map[string]int
	first    map[string]time.Time
	errors   []string
	samples  []Sample
}

// arrive starts new clients at the rate, whatever becomes of them.
func (g *generator) arrive(ctx context.Context, clients *sync.WaitGroup) {
	if g.Rate <= 0 {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, started := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * float64(g.Rate)); started < due; started++ {
			clients.Go(g.once)
		}
	}
}

// once is a new client: one connection, one request.
func (g *generator) once() {
	began := time.Now()
	conn, err := net.DialTimeout(g.Network, g.Address, g.Timeout)
	if err != nil {
		g.fail(began, "connect", err)
		return
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		// The answer has been read to its end by then; without this, ports
		// would run out in TIME_WAIT.
		_ = tcp.SetLinger(0)
	}
	_ = conn.SetDeadline(began.Add(g.Timeout))
	version, _, err := ask(conn, bufio.NewReaderSize(conn, 1024), g.last)
	if err != nil {
		g.fail(began, "ask on a new connection", err)
		return
	}
	g.answer(began, version, false)
}

// keep is a client that stays.
func (g *generator) keep(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := net.DialTimeout(g.Network, g.Address, g.Timeout)
		if err != nil {
			g.fail(time.Now(), "connect", err)
			g.pause(ctx)
			continue
		}
		g.stay(ctx, conn)
		conn.Close()
	}
}

// stay asks over one connection until told to leave.
func (g *generator) stay(ctx context.Context, conn net.Conn) {
	in := bufio.NewReaderSize(conn, 1024)
	for ctx.Err() == nil {
		began := time.Now()
		_ = conn.SetDeadline(began.Add(g.Timeout))
		version, leave, err := ask(conn, in, g.request)
		if err != nil {
			g.fail(began, "ask on a kept connection", err)
			g.pause(ctx)
			return
		}
		g.answer(began, version, true)
		if leave {
			return
		}
		g.pause(ctx)
	}
}

func (g *generator) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(g.Pause):
	}
}

// errStatus is an answer that is not good.
type errStatus int

func (e errStatus) Error() string { return fmt.Sprintf("got status %d, want 200", int(e)) }

// ask sends one request and reads the whole answer.
func ask(conn net.Conn, in *bufio.Reader, request []byte) (version string, leave bool, err error) {
	if _, err := conn.Write(request); err != nil {
		return "", false, err
	}
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", false, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return "", false, err
	}
	if answer.StatusCode != http.StatusOK {
		return "", false, errStatus(answer.StatusCode)
	}
	return answer.Header.Get(VersionHeader), answer.Close, nil
}

func (t *tally) answer(began time.Time, version string, kept bool) {
	took := time.Since(began)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered++
	t.versions[version]++
	if _, seen := t.first[version]; !seen {
		t.first[version] = began.Add(took)
	}
	t.samples = append(t.samples, Sample{Began: began, Took: took, Kept: kept})
}

func (t *tally) fail(began time.Time, doing string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed[classify(err)]++
	if len(t.errors) < 20 {
		t.errors = append(t.errors, fmt.Sprintf("%s %s: %v", began.Format("15:04:05.000000"), doing, err))
	}
}

func classify(err error) Failure {
	var status errStatus
	switch {
	case errors.As(err, &status):
		return Status
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return EOF
	case errors.Is(err, os.ErrDeadlineExceeded), strings.Contains(err.Error(), "i/o timeout"):
		return Timeout
	}
	return Other
}

// report sums up; the final one has latencies, and samples on demand.
func (g *generator) report(final bool) Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := Report{
		Sent: g.answered, Answered: g.answered, Failed: map[Failure]int{},
		Versions: map[string]int{}, FirstAnswer: map[string]time.Time{},
		Errors: slices.Clone(g.errors),
	}
	for f, n := range g.failed {
		r.Failed[f] = n
		r.Sent += n
	}
	for v, n := range g.versions {
		r.Versions[v], r.FirstAnswer[v] = n, g.first[v]
	}
	if !final || len(g.samples) == 0 {
		return r
	}
	slices.SortFunc(g.samples, func(a, b Sample) int { return int(a.Took - b.Took) })
	n := len(g.samples)
	r.Median, r.P99, r.Max = g.samples[n/2].Took, g.samples[n*99/100].Took, g.samples[n-1].Took
	if g.Samples {
		slices.SortFunc(g.samples, func(a, b Sample) int { return a.Began.Compare(b.Began) })
		r.Samples = g.samples
	}
	return r
}
