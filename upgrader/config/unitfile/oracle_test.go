package unitfile

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "ask the systemd of this machine again, and record what it says")

// recorded is what systemd said of each input, so that the comparison needs
// no systemd: kind → quoted input → answer. With -update the systemd of this
// machine is asked anew.
const recorded = "testdata/systemd-252.json"

type oracle struct {
	t       *testing.T
	answers map[string]map[string]string
}

func newOracle(t *testing.T) *oracle {
	t.Helper()
	o := &oracle{t: t, answers: map[string]map[string]string{}}
	raw, err := os.ReadFile(recorded)
	if err != nil && (!*update || !errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	if err == nil {
		if err := json.Unmarshal(raw, &o.answers); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// ask gives systemd's answer of that kind to the input.
func (o *oracle) ask(kind, input string, fresh func(*testing.T, string) string) string {
	o.t.Helper()
	key := strconv.QuoteToASCII(input)
	if *update {
		if o.answers[kind] == nil {
			o.answers[kind] = map[string]string{}
		}
		o.answers[kind][key] = fresh(o.t, input)
	}
	answer, ok := o.answers[kind][key]
	if !ok {
		o.t.Fatalf("systemd was never asked about %s %s: run go test -update on a machine with systemd", kind, key)
	}
	return answer
}

func (o *oracle) save() {
	if !*update {
		return
	}
	raw, err := json.MarshalIndent(o.answers, "", "\t")
	if err == nil {
		err = os.WriteFile(recorded, append(raw, '\n'), 0o644)
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

// verify has systemd load a unit and gives its complaints, one per line,
// without the file's name.
func verify(t *testing.T, kind, text string) []string {
	t.Helper()
	dir := t.TempDir()
	name := "x." + kind
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if kind == "socket" {
		if err := os.WriteFile(filepath.Join(dir, "x.service"), []byte("[Service]\nExecStart=/bin/true\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("systemd-analyze", "verify", "--man=no", "--generators=no", "./"+name)
	c.Dir = dir
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	// Values may hold line breaks, so the file's name is what begins a row.
	var rows []string
	for _, row := range strings.Split(string(out), filepath.Join(dir, name)+":")[1:] {
		rows = append(rows, strings.TrimSuffix(row, "\n"))
	}
	return rows
}

// parseInputs go below a [Service] header; Nice= is a key whose value systemd
// prints back when it is not a number.
var parseInputs = []string{
	"Nice=x\n",
	"  Nice \t = \t x y \t\n",
	"Nice=x",
	"Nice=a\\\nb\n",
	"Nice=a\\\n   b\\\n  c\n",
	"Nice=a\\\n# comment\n; other\n b\n",
	"Nice=a\\\n# comment that ends in \\\n b\n",
	"Nice=a\\\n\nNice=b\n",
	"Nice=a\\\\\nNice=b\n",
	"Nice=a\\\\\\\nNice=b\n",
	"Nice=a\\ \nNice=b\n",
	"Nice=a # no comment\n",
	"Nice=a ; no comment\n",
	"#Nice=a\n ;Nice=b\n\t#Nice=c\n",
	"Nice=a\r\nNice=b\r\n",
	"Nice=a\rNice=b\n\rNice=c\r\rNice=d\n",
	"Nice=a\x00Nice=b\n\x00Nice=c\x00\nNice=d\n",
	"Nice=a\\\r\n b\r\n",
	"\uFEFFNice=a\n",
	"Nice=a\n\uFEFFNice=b\n\uFEFFNice=c\n",
	"Nice==a\nNice=b=c\n",
	"Nice a\nNice=b\n",
	"=a\nNice=b\n",
	"Nice\\\n=a\n",
	"[Service]\nNice=a\n",
	" [Service] \nNice=a\n",
	"[Ser\\\nvice]\nNice=a\n",
	"[Unit]\nNice=a\n[Service]\nNice=b\n",
	"[Nonsense]\nNice=a\n[Service]\nNice=b\n",
	"[X-Ours]\nNice=a\n[Service]\nNice=b\n",
	"Nice=\"quoted\" 'value' \\x41\n",
	"Nice=é ü 😀\n",
	"\n\n\n\nNice=a\n",
	"Nice=" + strings.Repeat("x", 300) + "\n",
	strings.Repeat("Nice=a\\\n", 40) + "Nice=z\n",
}

var niceRow = regexp.MustCompile(`(?s)^(\d+): Failed to parse nice priority '(.*)', ignoring: Invalid argument$`)

func TestParseReadsAsSystemdDoes(t *testing.T) {
	o := newOracle(t)
	defer o.save()
	const head = "[Service]\nExecStart=/bin/true\n"
	for _, in := range parseInputs {
		answer := o.ask("nice", in, func(t *testing.T, in string) string {
			var rows []string
			for _, row := range verify(t, "service", head+in) {
				if m := niceRow.FindStringSubmatch(row); m != nil {
					rows = append(rows, m[1]+" "+m[2])
				}
			}
			return strings.Join(rows, "\n")
		})
		f, _ := Parse([]byte(head + in))
		var rows []string
		for _, s := range f.Sections {
			for _, a := range s.Assignments {
				if s.Name == "Service" && a.Key == "Nice" {
					rows = append(rows, fmt.Sprintf("%d %s", a.EndLine, a.Value))
				}
			}
		}
		if got := strings.Join(rows, "\n"); got != answer {
			t.Errorf("%q:\n got %q\nsystemd %q", in, got, answer)
		}
	}
}

var wordInputs = []string{
	"a", "a b", " a\tb ", `"a b" c`, `'a b' c`, `a"b c"d`, `a'b'"c"`, `""`, `a "" b`, `''`,
	`\x41`, `\101`, `\u00e9`, `\U0001F600`, `\s`, `a\sb`, `\a\b\f\v`, `\t`, `\\`, `\"`, `\'`,
	`"\x41"`, `'\x41'`, `"a\"b"`, `'a\'b'`, `"a\sb"`, `"unclosed`, `'unclosed`, `a"`,
	`\x4`, `\xzz`, `\x00`, `\000`, `\400`, `\477`, `\u000`, `\ud800`, `\ufdd0`, `\uffff`, `\U00110000`,
	`\xff`, `\u0000`, `\x+1`, `a;b`, `;`, `#`, `-x`, `@x`,
}

func TestWordsReadAsSystemdDoes(t *testing.T) {
	// What systemd takes for bytes, and Words refuses for not being text.
	stricter := map[string]bool{`\ud800`: true, `\xff`: true}
	o := newOracle(t)
	defer o.save()
	for _, in := range wordInputs {
		// A word of Environment= that is no assignment is printed back.
		answer := o.ask("words", in, func(t *testing.T, in string) string {
			var words []string
			for _, row := range verify(t, "service", "[Service]\nExecStart=/bin/true\nEnvironment="+in+"\n") {
				_, text, _ := strings.Cut(row, ": ")
				word, ok := strings.CutPrefix(text, "Invalid environment assignment, ignoring: ")
				if !ok {
					return "refused"
				}
				words = append(words, strconv.QuoteToASCII(word))
			}
			return strings.Join(words, " ")
		})
		got := "refused"
		if words, err := Words(in); err == nil {
			for i := range words {
				words[i] = strconv.QuoteToASCII(words[i])
			}
			got = strings.Join(words, " ")
		}
		if got != answer && !(stricter[in] && got == "refused") {
			t.Errorf("Words(%q) is %s, systemd reads %s", in, got, answer)
		}
	}
}

var spanInputs = []string{
	"5", "1.5s", ".5s", "5.", "5.s", "+5", "5 5", "1.2.3", "1.2 .3", "5s5", "5s 5", "1y 12month", "55s500ms",
	"300ms20s 5day", "1M", "1m", "0", "5 min", "5min2", "1e3", "5sec1", "0.0000005", "1.5us", "1.9us", "2.0000001s",
	"0.1us 0.9us", "1y", "200y", "infinity", " infinity ", "infinity 5", "5 infinity", "", " ", "5S", "5 µs", "5μs", "5x", "0x10",
	"010", "1 . 5", "1s.", "1 .5 s", "5d-3s", "5d +3s", "5s+3s", "1.+5", "+.5", "99999999999999999999", "3 ms", "1.23456789min",
	"5nsec", "1.99999999s", "1.h", "1. 5h", "1h,2m", "5\n3", "1 \t2s", "1s 2 3m", "1ms.5s", "1m.5", "1.5.5s",
	"2 h", "2hours", "48hr", "1seconds", "1second", "1sec", "1s", "1minutes", "1minute", "1min", "1hour", "1h",
	"1days", "1day", "1d", "1weeks", "1week", "1w", "1months", "1month", "1years", "1year", "1msec", "1usec", "15min",
}

func TestTimeSpanReadsAsSystemdDoes(t *testing.T) {
	o := newOracle(t)
	defer o.save()
	micros := regexp.MustCompile(`μs: (\d+)`)
	for _, in := range spanInputs {
		answer := o.ask("timespan", in, func(t *testing.T, in string) string {
			out, _ := exec.Command("systemd-analyze", "timespan", "--", in).CombinedOutput()
			if m := micros.FindStringSubmatch(string(out)); m != nil {
				return m[1]
			}
			return "refused"
		})
		got := "refused"
		switch d, err := TimeSpan(in); {
		case err == nil:
			got = strconv.FormatInt(int64(d/time.Microsecond), 10)
		case errors.Is(err, ErrInfinity):
			got = "18446744073709551615"
		}
		if got != answer {
			t.Errorf("TimeSpan(%q) is %s, systemd reads %s", in, got, answer)
		}
	}
}

var sizeInputs = []string{
	"0", "1", "512", "1K", "1M", "1G", "1T", "1P", "1E", "7E", "8E", "1B", "1.5G", ".5G", "1 G", "1G 512M", "1G512M", "512M 1G",
	"1G 1G", "1K 1B", "1 2", "1KB", "1KiB", "1k", "1g", "-1", "+1", "0x10", "1e3", "1.", "1.G", "1..5G", "G", "1G ", "10 M 5 K",
	"99999999999999999999",
}

func TestSizeAcceptsWhatSystemdDoes(t *testing.T) {
	// What systemd takes and Size does not: no digit after a point, and more
	// bytes than an int64 counts.
	stricter := map[string]bool{"1.": true, "1.G": true, "8E": true}
	o := newOracle(t)
	defer o.save()
	for _, in := range sizeInputs {
		answer := o.ask("size", in, func(t *testing.T, in string) string {
			for _, row := range verify(t, "socket", "[Socket]\nListenStream=1\nPipeSize="+in+"\n") {
				if strings.Contains(row, "Failed to parse size value") {
					return "refused"
				}
			}
			return "taken"
		})
		got := "refused"
		if _, err := Size(in); err == nil {
			got = "taken"
		}
		if got != answer && !(stricter[in] && got == "refused") {
			t.Errorf("Size(%q) is %s, by systemd %s", in, got, answer)
		}
	}
}

var unitInputs = []string{
	"a.service", "a-b_c.d:e.service", `a\x20b.service`, "a@.service", "a@b.service", "a@b@c.service", "@.service", "@b.service",
	".service", "service", "a", "a.", "a.b", "a.servic", "a.Service", "a b.service", "a/b.service", "é.service", "a.service.service",
	"a.socket", "a.mount", "a.timer", "..service", "-.slice", strings.Repeat("a", 247) + ".service",
	strings.Repeat("a", 248) + ".service", "a$b.service", "a+b.service", "a,b.service", "a~b.service",
}

func TestUnitNameAcceptsWhatSystemdDoes(t *testing.T) {
	o := newOracle(t)
	defer o.save()
	for _, in := range unitInputs {
		answer := o.ask("unit", in, func(t *testing.T, in string) string {
			for _, row := range verify(t, "service", "[Unit]\nAfter="+in+"\n[Service]\nExecStart=/bin/true\n") {
				if strings.Contains(row, "Failed to add dependency") {
					return "refused"
				}
			}
			return "taken"
		})
		u, err := ParseUnitName(in)
		got := "taken"
		if err != nil {
			got = "refused"
		}
		// systemd takes no dependency on a template, although the name is one.
		if got != answer && !u.Template() {
			t.Errorf("ParseUnitName(%q) is %s (%v), by systemd %s", in, got, err, answer)
		}
	}
}
