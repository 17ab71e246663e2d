package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReferenceIsCurrent(t *testing.T) {
	const file = "../../docs/upgrade-keys.md"
	if *update {
		check(t, os.MkdirAll("../../docs", 0o755))
		check(t, os.WriteFile(file, []byte(Reference()), 0o644))
	}
	text, err := os.ReadFile(file)
	check(t, err)
	if diff := cmp.Diff(string(text), Reference()); diff != "" {
		t.Errorf("%s is not what the table says (run this test with -update):\n%s", file, diff)
	}
}

// The file at the top of the reference, and the sample with its comments
// taken away, are files that load.
func TestDocumentedFilesLoad(t *testing.T) {
	var block []string
	for _, line := range strings.Split(Reference(), "\n") {
		if l, ok := strings.CutPrefix(line, "    "); ok {
			block = append(block, l)
		}
	}
	for name, text := range map[string]string{
		"reference": strings.Join(block, "\n"),
		"sample":    Sample(),
		"all":       strings.ReplaceAll(Sample(), "#", ""),
	} {
		// The keys of the examples are files that a reader would have.
		text = strings.ReplaceAll(text, "/etc/upgraderd/app.pub", keyA)
		text = strings.ReplaceAll(text, "/etc/upgraderd/revoked.pub", keyC)
		for _, file := range append([]string{"CAFile", "TokenFile", "LoginFile", "CertificateFile", "PrivateKeyFile"}, kindKeys()...) {
			text = strings.Replace(text, file+"=", "X-"+file+"=", 1)
		}
		text = strings.Replace(text, "#Root=", "#X-Root=", 1)
		text = strings.Replace(text, "Config=", "X-Config=", 1) // beside a program it has no place
		if name == "all" {
			text = strings.Replace(text, "\nRoot=", "\nX-Root=", 1) // beside keys it has no place
		}
		if name == "sample" {
			text = strings.Replace(text, "#Key=", "Key=", 1)
		}
		if target, ds := Load(one(t, text), "app"); target == nil || len(ds) > 0 {
			t.Errorf("%s: %v\n%s", name, ds, text)
		}
	}
}

func TestHelp(t *testing.T) {
	var out strings.Builder
	if ok, err := Help(&out, "unit", "Source.Verify="); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got := out.String(); !strings.HasPrefix(got, "[Upgrade] Unit=UNIT\n    The service") || !strings.Contains(got, "[Source] Verify=signed|tuf|no\n") {
		t.Errorf("got\n%s", got)
	}
	out.Reset()
	if ok, err := Help(&out, "Verfy"); ok || err != nil || out.String() != "Verfy is no key; did you mean Verify?\n" {
		t.Errorf("%v, %v, %s", ok, err, out.String())
	}
	out.Reset()
	if ok, err := Help(&out); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, k := range Keys() {
		if !strings.Contains(out.String(), "["+k.Section+"] "+k.Name+"=") {
			t.Errorf("%s= is missing", k.Name)
		}
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if len(line) > 79 {
			t.Errorf("line of %d bytes: %s", len(line), line)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"Unit", "Swap", "MatchPattern", "PollIntervalSec"}
	for word, want := range map[string]string{
		"unit": "Unit", "Unti": "Unit", "Uni": "Unit", "Units": "Unit", "Swpa": "Swap", "matchpattern": "MatchPattern",
		"MatchPatern": "MatchPattern", "PollInterval": "PollIntervalSec", "": "", "x": "", "Exec": "",
		strings.Repeat("Unit", 1000): "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%.20q) is %q, want %q", word, got, want)
		}
	}
}
