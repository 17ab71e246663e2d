package drain

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// What a drain decides about a connection, in every situation that matters.
func TestVerdicts(t *testing.T) {
	const grace = 200 * time.Millisecond
	type facts struct {
		state                    http.ConnState
		http2                    bool
		handling, told, wrote    bool // a handler runs; it was told; its header is out
		partial                  bool // bytes were read in this state
		queued                   bool // bytes wait in the kernel
		quiet                    time.Duration
		atRisk, atRiskLate, done bool
	}
	for name, tt := range map[string]facts{
		"new, a moment ago":        {state: http.StateNew, quiet: grace / 2, atRisk: true, atRiskLate: true},
		"new, and silent":          {state: http.StateNew, quiet: grace, atRisk: true, atRiskLate: true, done: true},
		"new, and just now a byte": {state: http.StateNew, quiet: grace, queued: true, atRisk: true, atRiskLate: true},
		"new, half a header":       {state: http.StateNew, quiet: grace, partial: true, atRisk: true, atRiskLate: true},
		"new, stuck in a header":   {state: http.StateNew, quiet: partialWait, partial: true, atRisk: true, atRiskLate: true, done: true},
		"idle, a moment ago":       {state: http.StateIdle, quiet: grace / 2, atRisk: true, atRiskLate: true},
		"idle, and silent":         {state: http.StateIdle, quiet: grace, atRisk: true, atRiskLate: true, done: true},
		"idle, and just now":       {state: http.StateIdle, quiet: grace, queued: true, atRisk: true, atRiskLate: true},
		"read, not handled yet":    {state: http.StateActive, quiet: time.Hour, atRisk: true, atRiskLate: true},
		"handled":                  {state: http.StateActive, quiet: time.Hour, handling: true},
		"handled, told":            {state: http.StateActive, quiet: time.Hour, handling: true, told: true, wrote: true},
		"streaming, not told":      {state: http.StateActive, quiet: time.Hour, handling: true, wrote: true, atRisk: true},
		"hijacked":                 {state: http.StateHijacked, quiet: time.Hour},
		"http2, idle":              {state: http.StateIdle, quiet: time.Hour, http2: true},
		"http2, busy":              {state: http.StateActive, quiet: time.Hour, http2: true},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			nc, err := wiredListener{l}.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()

			d := &Server{grace: grace}
			c := &conn{nc: nc, wire: wireOf(nc)}
			c.state.Store(int32(tt.state))
			c.http2.Store(tt.http2)
			c.handling.Store(tt.handling)
			c.told.Store(tt.told)
			c.wire.wrote.Store(tt.wrote)
			if tt.partial {
				c.wire.reads.Add(1)
			}
			c.steps.Add(1)
			begun := time.Now()
			if d.done(c, begun) {
				t.Fatal("done at the first look")
			}
			if tt.queued {
				fmt.Fprint(client, "GET")
				for deadline := time.Now().Add(5 * time.Second); !c.queued() && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
			}
			if got := c.atRisk(true); got != tt.atRisk {
				t.Errorf("at risk: got %t, want %t", got, tt.atRisk)
			}
			if got := c.atRisk(false); got != tt.atRiskLate {
				t.Errorf("at risk, late in the drain: got %t, want %t", got, tt.atRiskLate)
			}
			if got := c.atRisk(true) && d.done(c, begun.Add(tt.quiet)); got != tt.done {
				t.Errorf("done after %s: got %t, want %t", tt.quiet, got, tt.done)
			}
		})
	}
}
