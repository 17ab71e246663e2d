package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/guide"
)

// runners are the tests that play what stands in a page, or in a chapter of it: as it
// stands there, read from the page.
var runners = map[string]string{
	"README.md#Sixty seconds to the first upgrade":   "test/integration/docs: TestPages",
	"docs/adopt.md#Behind a proxy":                   "test/integration/docs: TestPages",
	"docs/porting/overseer.md":                       "test/integration/docs: TestPages",
	"docs/porting/containers.md":                     "test/integration/docs: TestPorting",
	"docs/porting/endless.md":                        "test/integration/docs: TestPorting",
	"docs/porting/nginx.md":                          "test/integration/docs: TestPorting",
	"docs/porting/release-folder.md":                 "test/integration/docs: TestPorting",
	"docs/adopt.md#A walk":                           "test/integration/adopt: TestAdopt",
	"docs/beside.md":                                 "test/integration/docs: TestPages",
	"docs/dbus.md#Over D-Bus":                        "test/integration/docs: TestPages",
	"docs/deltas.md#Publish":                         "test/integration/docs: TestPages",
	"docs/deltas.md#The convention":                  "test/integration/docs: TestPages",
	"docs/deploy.md#Deploying from a script":         "test/integration/docs: TestPages",
	"docs/deploy.md#What is deployed":                "test/integration/docs: TestPages",
	"docs/deploy.md#Over ssh, with this right alone": "test/integration/upgrade: TestOrders",
	"docs/first-upgrade.md":                          "test/integration/packages: TestPackages",
	"docs/holds.md":                                  "test/integration/docs: TestPages",
	"docs/metrics.md#By node_exporter":               "test/integration/upgrade: TestOrders",
	"docs/metrics.md#By a socket":                    "test/integration/docs: TestPages",
	"docs/offline.md":                                "test/integration/docs: TestPages",
	"docs/signing.md":                                "fetcher: TestSigningGuide",
	"docs/sources.md":                                "fetcher: TestSourcesGuide",
	"docs/trust.md":                                  "test/integration/docs: TestPages",
	"README.md#See it":                               "docs: TestMakeTargets",
	"README.md#Develop":                              "docs: TestMakeTargets",
	"docs/user-units.md":                             "test/integration/user: TestStory",
	"docs/what-happens-when.md#What happens when …":  "test/integration/docs: TestPages",
}

// Each block of commands is played by a test that reads the page.
func TestCommandsAreRun(t *testing.T) {
	pages := []string{"README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/porting/*.md"} {
		found, err := filepath.Glob(filepath.Join(guide.Root(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range found {
			name, err := filepath.Rel(guide.Root(), page)
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, name)
		}
	}
	used := map[string]bool{}
	for _, page := range pages {
		blocks, err := guide.Read(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if !b.Commands() {
				continue
			}
			where := page + "#" + b.Chapter
			if runners[where] == "" {
				where = page
			}
			used[where] = true
			if runners[where] == "" {
				t.Errorf("%s, %q: no test runs:\n%s", page, b.Chapter, b.Text)
			}
		}
	}
	for where, runner := range runners {
		if !used[where] {
			t.Errorf("%s has no commands any more", where)
		}
		folder, name, _ := strings.Cut(runner, ": ")
		page, _, _ := strings.Cut(where, "#")
		if text := tests(t, folder); !strings.Contains(text, "func "+name+"(") || !strings.Contains(text, filepath.Base(page)) {
			t.Errorf("%s: %s is not there, or reads another page", where, runner)
		}
	}
}

// tests is the code of all tests in a folder.
func tests(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(guide.Root(), folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(data)
	}
	return text
}

// What is made is a target of the Makefile's.
func TestMakeTargets(t *testing.T) {
	blocks, err := guide.Read("README.md")
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, b := range blocks {
		for line := range strings.Lines(b.Text) {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "make" {
				continue
			}
			made++
			if out, err := exec.CommandContext(t.Context(), "make", "--dry-run", "--directory", guide.Root(), words[1]).CombinedOutput(); err != nil {
				t.Errorf("make %s: %v: %s", words[1], err, out)
			}
		}
	}
	if made < 4 {
		t.Errorf("found %d calls of make, want at least 4", made)
	}
}
