package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFilesAndTry(t *testing.T) {
	root := t.TempDir()
	const good = "[Upgrade]\nUnit=app.service\n[Source]\nPath=/srv/app\nMatchPattern=app_@v\nVerify=no\n"
	for name, text := range map[string]string{
		"usr/lib/upgraderd/app.upgrade":              good,
		"etc/upgraderd/app.upgrade.d/b.conf":         "[Confirm]\nWindowSec=2s\n",
		"usr/lib/upgraderd/app.upgrade.d/a.conf":     "[Confirm]\nWindowSec=1s\n",
		"etc/upgraderd/masked.upgrade":               "",
		"usr/lib/upgraderd/app.upgrade.d/ignored.no": "x",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := At(root).Files("app")
	want := []string{root + "/usr/lib/upgraderd/app.upgrade", root + "/usr/lib/upgraderd/app.upgrade.d/a.conf", root + "/etc/upgraderd/app.upgrade.d/b.conf"}
	if err != nil || !slices.Equal(files, want) {
		t.Errorf("got %v, %v; want %v", files, err, want)
	}
	for name, want := range map[string]string{"masked": "masked", "none": "no such file", "../app": "cannot"} {
		if _, err := At(root).Files(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	for _, c := range []struct{ file, text, want string }{
		{At(root).OwnFile("app"), strings.ReplaceAll(good, "app_@v", "app"), "MatchPattern"}, // over the one in /usr
		{At(root).OwnFile("new"), good, ""},
		{At(root).OwnFile("new"), "", "masked"},
		{At(root).OwnDropIns("app") + "/c.conf", "[Confirm]\nWindowSec=soon\n", "WindowSec"},
		{At(root).OwnDropIns("app") + "/b.conf", "[Source]\nPath=\n", "Path"}, // in the place of what is there
		{At(root).OwnDropIns("app") + "/b.conf", "", ""},
	} {
		name, _, _ := strings.Cut(filepath.Base(strings.TrimSuffix(filepath.Dir(c.file), "/etc/upgraderd")), ".")
		if filepath.Dir(c.file) == "/etc/upgraderd" {
			name, _, _ = strings.Cut(filepath.Base(c.file), ".")
		}
		err := At(root).Try(name, c.file, []byte(c.text)).Err()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %q: got %v, want %q", c.file, c.text, err, c.want)
		}
	}
	// Nothing of that came to the disk.
	if _, err := os.Stat(filepath.Join(root, At(root).OwnFile("new"))); err == nil {
		t.Error("trying wrote a file")
	}
}
