package metrics

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/progress"
)

var update = flag.Bool("update", false, "write the golden file and docs/metrics.md anew")

func host() Host {
	at := time.Date(2026, 11, 27, 16, 0, 0, 500_000_000, time.UTC)
	return Host{Version: "v1.2.3", Go: "go1.26.5", Broken: 2, Targets: []upgrader.TargetStatus{
		{
			Name: "app", Unit: "app.service", Swap: upgrader.SwapHandover, State: upgrader.Fetching, Since: at,
			Current: "1.1-0123456789ab", Previous: "1.0-ba9876543210", Trouble: "no route to host", Checked: at, PollIntervalSec: 900,
			Last:     &upgrader.Outcome{Verdict: upgrader.VerdictRolledBack, When: at.Add(time.Minute)},
			KnownBad: []upgrader.KnownBad{{Digest: "00"}}, Progress: &progress.Progress{Done: 4096, Total: 8192},
			Totals: upgrader.Totals{
				Attempts:     map[upgrader.Verdict]int64{upgrader.VerdictGood: 12, upgrader.VerdictRolledBack: 1},
				FetchedBytes: 1 << 40,
				Swaps:        map[upgrader.Swap]upgrader.Spent{upgrader.SwapHandover: {Count: 13, TookUs: 1_950_000}},
			},
		},
		{Name: "new", Unit: "new.service", Swap: upgrader.SwapAuto, State: upgrader.Idle, Unsigned: true},
		// As whoever broke into the daemon's user may have it.
		{
			Name: "evil", Unit: "a\"} 1\nupgraderd_target_trouble{target=\"app", State: "neither",
			Current: "\x1b[2J\\" + strings.Repeat("ü", 5000), Previous: "\xff\u202e\ufffd", PollIntervalSec: -1,
			Last: &upgrader.Outcome{Verdict: "splendid"},
			Totals: upgrader.Totals{
				Attempts:     map[upgrader.Verdict]int64{"splendid": 5, upgrader.VerdictGood: -5},
				FetchedBytes: -1,
				Swaps:        map[upgrader.Swap]upgrader.Spent{upgrader.SwapRestart: {Count: -2, TookUs: -1 << 62}},
			},
		},
	}}
}

func text(t *testing.T, h Host) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, h); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestText reads what we write as Prometheus does.
func TestText(t *testing.T) {
	const golden = "testdata/metrics.prom"
	got := text(t, host())
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table() {
		f := families[m.Name]
		if f == nil {
			t.Errorf("%s: no series in the sample", m.Name)
			continue
		}
		if kind(strings.ToLower(f.GetType().String())) != m.Kind || f.GetHelp() != m.Help {
			t.Errorf("%s was read as a %s: %s", m.Name, f.GetType(), f.GetHelp())
		}
		for _, series := range f.GetMetric() {
			var names []string
			for _, l := range series.GetLabel() {
				names = append(names, l.GetName())
				if len(l.GetValue()) > valueMax || strings.ContainsFunc(l.GetValue(), func(r rune) bool { return r < ' ' }) {
					t.Errorf("%s: label %s is %q", m.Name, l.GetName(), l.GetValue())
				}
			}
			slices.Sort(names)
			if want := slices.Sorted(slices.Values(m.Labels)); !slices.Equal(names, want) {
				t.Errorf("%s: labels %q, want %q", m.Name, names, want)
			}
			if series.GetCounter().GetValue() < 0 || series.GetSummary().GetSampleSum() < 0 {
				t.Errorf("%s counts backwards: %v", m.Name, series)
			}
		}
		delete(families, m.Name)
	}
	if len(families) > 0 {
		t.Errorf("not in the table: %v", families)
	}
}

// A target costs a fixed number of series, whatever happened to it.
func TestSeriesAreBounded(t *testing.T) {
	const each = 50
	series := 0
	for line := range strings.Lines(text(t, host())) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	if most := len(host().Targets)*each + 2; series > most {
		t.Errorf("%d series, want %d at most", series, most)
	}
}

func TestNames(t *testing.T) {
	for _, m := range table() {
		if !strings.HasPrefix(m.Name, "upgraderd_") || strings.HasSuffix(m.Name, "_total") != (m.Kind == counter) ||
			!strings.HasSuffix(m.Help, ".") || strings.ContainsAny(m.Help, "|\n\\") {
			t.Errorf("%s, a %s: %s", m.Name, m.Kind, m.Help)
		}
	}
}

// Every state and verdict that there is has a series.
func TestStatesAndVerdicts(t *testing.T) {
	ofOrders := []string{string(upgrader.VerdictStaged), string(upgrader.VerdictBeside)} // and of no attempt
	for file, have := range map[string][]string{
		"../machine.go": words(states),
		"../record.go":  append(words(verdicts), ofOrders...),
	} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range regexp.MustCompile(`\n\t\w+ +(?:State|Verdict) += "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
			if n++; !slices.Contains(have, m[1]) {
				t.Errorf("%s: %q has no series", file, m[1])
			}
		}
		if n < len(have) {
			t.Errorf("%s: found %d, have %d", file, n, len(have))
		}
	}
}

func words[S ~string](all []S) (texts []string) {
	for _, s := range all {
		texts = append(texts, string(s))
	}
	return texts
}

const (
	rulesFile     = "../../units/examples/prometheus-rules.yml"
	dashboardFile = "../../units/examples/grafana-dashboard.json"
	referenceFile = "../../docs/metrics.md"
)

func TestReferenceIsCurrent(t *testing.T) {
	page, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`(?s)\| Metric \|.*?\n\n`)
	want := table.ReplaceAllLiteralString(string(page), Reference()+"\n")
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		page = []byte(want)
	}
	if !table.Match(page) {
		t.Fatal("the page has no table")
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("the page is not what the table says (run this test with -update):\n%s", diff)
	}
}

func TestRules(t *testing.T) {
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Alert, Expr         string
		For                 string
		Labels, Annotations map[string]string
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			checkQuery(t, r.Alert, r.Expr)
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || seen[r.Alert] {
				t.Errorf("%s: %+v", r.Alert, r)
			}
			seen[r.Alert] = true
			if !strings.Contains(string(page), "`"+r.Alert+"`") {
				t.Errorf("%s does not tell of %s", referenceFile, r.Alert)
			}
		}
	}
	if len(seen) < 5 {
		t.Errorf("%d alerts", len(seen))
	}
}

func TestDashboard(t *testing.T) {
	data, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range dashboard.Panels {
		for _, q := range p.Targets {
			checkQuery(t, p.Title, q.Expr)
			n++
		}
	}
	values := regexp.MustCompile(`^label_values\((\w+), \w+\)$`)
	for _, v := range dashboard.Templating.List {
		if v.Definition == "" {
			continue
		}
		m := values.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Fatalf("variable %s: %s", v.Name, v.Definition)
		}
		checkQuery(t, v.Name, m[1])
	}
	if n < 10 {
		t.Errorf("%d queries", n)
	}
}

// TestQueriesAreChecked has the check refuse what is not there.
func TestQueriesAreChecked(t *testing.T) {
	for _, bad := range []string{"upgraderd_nothing", `upgraderd_known_bad{verdict="good"}`, "rate(upgraderd_known_bad", `upgraderd_attempts_total{verdict="fine"}`} {
		if err := query(bad); err == "" {
			t.Errorf("%s passed", bad)
		}
	}
}

func checkQuery(t *testing.T, where, expr string) {
	t.Helper()
	if err := query(expr); err != "" {
		t.Errorf("%s: %s: %s", where, expr, err)
	}
}

// query says what is wrong with a query, "" if nothing.
func query(expr string) (wrong string) {
	parsed, err := metricsql.Parse(expr)
	if err != nil {
		return err.Error()
	}
	have := map[string]metric{}
	for _, m := range table() {
		if m.Kind == summary {
			have[m.Name+"_sum"], have[m.Name+"_count"] = m, m
			continue
		}
		have[m.Name] = m
	}
	have["node_textfile_mtime_seconds"] = metric{Labels: []string{"file"}} // node_exporter's
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			if len(filters) == 0 || filters[0].Label != "__name__" {
				wrong = "a query without a metric"
				continue
			}
			known, ok := have[filters[0].Value]
			if !ok {
				wrong = "no metric " + filters[0].Value
			}
			for _, f := range filters[1:] {
				if f.Label != "instance" && f.Label != "job" && !slices.Contains(known.Labels, f.Label) {
					wrong = filters[0].Value + " has no label " + f.Label
				}
				values := map[string][]string{"state": words(states), "verdict": words(verdicts)}[f.Label]
				for _, v := range strings.Split(f.Value, "|") {
					if values != nil && !slices.Contains(values, v) {
						wrong = "no " + f.Label + " is " + v
					}
				}
			}
		}
	})
	return wrong
}
