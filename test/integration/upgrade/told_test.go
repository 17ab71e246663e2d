//go:build integration

package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// told is the end of TestOrders: what became of its orders is told, as a timeline and
// in numbers, which say the same whoever asks.
func told(t *testing.T, m *kit.Machine) {
	t.Helper()
	handover(t, m)

	// Nothing listens that was not asked to.
	if text, err := asked(m); err == nil {
		t.Errorf("somebody listens already: %s", text)
	}
	m.Run("systemctl", "enable", "--now", "upgraderd-metrics.socket")
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // each is answered by a process of its own
		text, err := asked(m)
		if err != nil {
			t.Fatal(err)
		}
		attempts(t, "the socket", text)
	}
	before := attempts(t, "the command", m.Run("upgraderd", "metrics"))

	// The daemon keeps a file, as the page has it, and counts on.
	m.Run("sh", "-ec", documented(t, string(page)))
	const file = "/var/cache/upgraderd-metrics/upgraderd.prom"
	m.Eventually("the textfile is there", func() bool {
		_, err := os.Stat(filepath.Join(m.Root(), file))
		return err == nil
	})
	if mode := m.Run("stat", "-c", "%a %U", file); mode != "644 upgraderd" {
		t.Errorf("%s is %s", file, mode)
	}
	m.Run("upgraderd", "forgive", "hello") // of what handover undid
	m.Run("upgraderd", "upgrade", "hello", "3.3.0")
	m.Eventually("the textfile has the attempt", func() bool {
		text, err := os.ReadFile(filepath.Join(m.Root(), file))
		if err != nil {
			t.Fatal(err)
		}
		return attempts(t, "the textfile", string(text)) == before+1
	})
}

// asked gets what the socket answers.
func asked(m *kit.Machine) (string, error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(m.Root(), "run/upgraderd-metrics"))
		},
	}}
	answer, err := client.Get("http://localhost/metrics")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return string(text), err
}

// documented are the commands of the page that have the daemon keep a file.
func documented(t *testing.T, page string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "Give it a place:\n\n")
	commands, _, end := strings.Cut(rest, "\n\n")
	if !ok || !end {
		t.Fatal("docs/metrics.md does not say how to keep a file")
	}
	return commands
}

// attempts reads metrics as Prometheus does, and counts the attempts that were good.
func attempts(t *testing.T, where, text string) float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text + "\n"))
	if err != nil {
		t.Fatalf("%s: %v:\n%s", where, err, text)
	}
	for _, series := range families["upgraderd_attempts_total"].GetMetric() {
		for _, l := range series.GetLabel() {
			if l.GetValue() == "good" {
				return series.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("%s counts no attempts:\n%s", where, text)
	return 0
}

// attempt is what the history says of one.
type attempt struct {
	Number   int    `json:"number"`
	To       string `json:"to"`
	Verdict  string `json:"verdict"`
	Handover *struct {
		Started int64 `json:"started_us"`
		Ready   int64 `json:"ready_us"`
		Drained int64 `json:"drained_us"`
	} `json:"handover"`
}

// handover looks at one whose workers come and go while it is on trial: 3.3.0, in a
// window that nobody waits for the end of.
func handover(t *testing.T, m *kit.Machine) {
	t.Helper()
	m.Write("/etc/upgraderd/hello.upgrade.d/window.conf", "[Confirm]\nWindowSec=5min\n")
	m.Run("upgraderd", "upgrade", "hello", "3.3.0", "--no-wait") // which has it read that, too
	var last attempt
	m.Eventually("the old worker has drained", func() bool {
		var all []attempt
		text := m.Run("upgraderd", "history", "hello", "--json")
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		last = all[len(all)-1]
		return last.To == "3.3.0" && last.Verdict == "" && last.Handover != nil && last.Handover.Drained > 0
	})
	if h := last.Handover; h.Started >= h.Ready || h.Ready >= h.Drained {
		t.Errorf("got %+v", h)
	}
	m.Run("rm", "/etc/upgraderd/hello.upgrade.d/window.conf")
	m.Run("upgraderd", "rollback", "hello")
	m.Run("systemctl", "reload", "upgraderd.service")
	drawn := m.Run("env", "LC_ALL=C.UTF-8", "upgraderd", "show", "hello", strconv.Itoa(last.Number))
	for _, want := range []string{" rolled back after ", "  ready in ", "  drained in ", " is told to drain", "has drained, and ended", " starting  █ serving"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("%q is missing in:\n%s", want, drawn)
		}
	}
	t.Log(drawn)
}
