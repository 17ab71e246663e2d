package config

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The answer is that of systemd-id128(1), version 257, on a machine of that id:
// systemd-id128 machine-id --app-specific=4ba2f4d2d1e44f6e9a8c5c0d9f3b7e21
func TestAppSpecific(t *testing.T) {
	id, err := appSpecific("3d1219c7c4c5404aaa1f6d2a48adfda4", "4ba2f4d2d1e44f6e9a8c5c0d9f3b7e21")
	if got := hex.EncodeToString(id); got != "1a57ddc30b864e4aa36b3df4c65a8ab5" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestFixedDelay(t *testing.T) {
	const one, two = "3d1219c7c4c5404aaa1f6d2a48adfda4", "3d1219c7c4c5404aaa1f6d2a48adfda5"
	root := t.TempDir()
	for _, dir := range []string{"/etc/upgraderd"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	load := func(machine, name, fixed string) (uint64, Diagnostics) {
		t.Helper()
		if err := os.WriteFile(root+"/etc/machine-id", []byte(machine+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(root, "etc/upgraderd", name+".upgrade")
		text := "[Upgrade]\nUnit=" + name + ".service\n[Source]\nPath=/srv\nMatchPattern=x_@v\nVerify=no\nRandomizedDelaySec=1h\n" + fixed + "\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		target, ds := Load(root, name)
		if target == nil {
			return 0, ds
		}
		return target.Source.FixedDelay, ds
	}
	got := map[uint64]string{}
	for _, c := range []struct{ machine, name string }{{one, "a"}, {one, "b"}, {two, "a"}, {two, "b"}} {
		seed, ds := load(c.machine, c.name, "FixedRandomDelay=yes")
		again, _ := load(c.machine, c.name, "FixedRandomDelay=on")
		if seed == 0 || seed != again || got[seed] != "" {
			t.Errorf("%s on %s: got %d, then %d, as %q; %v", c.name, c.machine, seed, again, got[seed], ds)
		}
		got[seed] = c.name + " on " + c.machine
	}
	for _, text := range []string{"", "FixedRandomDelay=no", "FixedRandomDelay=yes\nFixedRandomDelay=no", "FixedRandomDelay=yes\nFixedRandomDelay="} {
		if seed, ds := load(one, "a", text); seed != 0 || len(ds.Errors()) > 0 {
			t.Errorf("%q: got %d, %v", text, seed, ds)
		}
	}
	_, ds := load("uninitialized", "a", "FixedRandomDelay=yes")
	if err := ds.Err(); err == nil || !strings.Contains(err.Error(), "machine id") {
		t.Errorf("without a machine id: %v", err)
	}
}
