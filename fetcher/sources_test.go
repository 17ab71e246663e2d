package fetcher

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/registry"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/versity"
)

// TestSourcesGuide publishes by the commands of docs/sources.md, with the tools
// that they name, and looks with the eyes of a host that follows.
func TestSourcesGuide(t *testing.T) {
	raw, err := os.ReadFile("../docs/sources.md")
	if err != nil {
		t.Fatal(err)
	}
	depot, shelf := newDepot(t), registry.Start(t, "")
	_, port, _ := strings.Cut(shelf.Address, ":")
	host := strings.TrimPrefix(depot.URL, "http://")

	for _, c := range []struct {
		section, tool, config string
		follow                func(Options) Options
	}{
		{
			"S3", sourcetest.Program(t, "s3cmd"),
			fmt.Sprintf("[default]\naccess_key = %s\nsecret_key = %s\nhost_base = %s\nhost_bucket = %s\nbucket_location = %s\nuse_https = False\n",
				versity.ID, versity.Secret, host, host, versity.Region),
			depot.follow,
		},
		{
			"OCI registries", sourcetest.Tool(t, "oras"), "",
			func(o Options) Options {
				o.Path, o.Endpoint = "oci://registry.example.com/acme/app:stable", "http://"+shelf.Address
				return o
			},
		},
	} {
		t.Run(c.section, func(t *testing.T) {
			d := newDesk(t, "sources.md")
			d.write(".s3cfg", c.config, 0o600)
			if err := os.Symlink(c.tool, filepath.Join(d.dir, "bin", filepath.Base(c.tool))); err != nil {
				t.Fatal(err)
			}
			d.run(0, "mkdir dist .minisign; echo a program > dist/app_1.4.tar.zst; minisign -G -W")
			d.run(0, strings.ReplaceAll(commands(t, string(raw), c.section), "registry.example.com", "localhost:"+port))
			f := mustNew(t, c.follow(Options{Target: "app", Patterns: []string{"app_@v.tar.zst"}, Keys: []string{filepath.Join(d.dir, "minisign.pub")}}))
			c := newest(t, f)
			v := mustFetch(t, f, c, t.TempDir())
			if got := string(content(t, v)); c.Version != "1.4" || got != "a program\n" {
				t.Errorf("fetched %q of %s", got, c.Version)
			}
		})
	}
}

// commands are the lines of a section, from the one that makes dist ready on.
func commands(t *testing.T, guide, section string) string {
	t.Helper()
	_, text, _ := strings.Cut(guide, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	_, text, ok := strings.Cut(text, "\n    cd dist ")
	if !ok {
		t.Fatalf("%s: nothing is published from dist", section)
	}
	lines := strings.Split("    cd dist "+text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "    ") {
			lines = lines[:i]
			break
		}
	}
	return strings.Join(lines, "\n")
}
