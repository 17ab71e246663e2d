package config

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
	"github.com/upgraderd/upgraderd/upgrader/window"
)

const (
	keyA = "RWQ6hEqFjLN+XxRQvXZno7WQYh8CvDZxVMG6iBPJsAJQRDfBjnMbD7c8"
	keyB = "RWTZZy6Q47ixbhpZjZuVBBYJIz/84Q8vanLSmH/b0hy2ttRz64LV4cCV"
	keyC = "RWT8JnJephfHUc+Ey6cXxgnum2RMjpGK32HCkPeeOQLAqS4jFX/58Bt2"
)

const small = `[Upgrade]
Unit=app.service
[Source]
Path=https://example.org/app
MatchPattern=app_@v
Key=` + keyA + "\n"

// lintFiles reads the root directory that a test archive describes.
func lintFiles(t *testing.T, name string) string {
	t.Helper()
	a, err := txtar.ParseFile("testdata/lint/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return plant(t, a.Files[:len(a.Files)-1])
}

func TestLoadAll(t *testing.T) {
	root := lintFiles(t, "good")
	targets, ds := LoadAll(root)
	if err := ds.Err(); err != nil || len(ds) > 0 {
		t.Fatal(ds)
	}
	want := []*upgrader.Target{
		{
			Name: "app", File: root + "/etc/upgraderd/app.upgrade", Unit: "app.service",
			Swap: upgrader.SwapAuto, Program: "bin/app", CheckTimeout: 30 * time.Second, InstancesMax: 3,
			Source: fetcher.Options{
				Target: "app", Path: "https://example.org/app", Patterns: []string{"app_@v"},
				Verify: fetcher.VerifySigned, Keys: []string{keyA}, Threshold: 1,
				PollInterval: 15 * time.Minute, SizeMax: 1 << 30, BandwidthMin: 1 << 10, StallTimeout: 30 * time.Second,
			},
			Confirm: upgrader.Confirm{
				Window: time.Minute, ProbeInterval: time.Second, ProbeTimeout: 5 * time.Second, ProbeFailuresMax: 3,
			},
		},
		{
			Name: "big", File: root + "/usr/lib/upgraderd/big.upgrade", Unit: "big@blue.service",
			Swap: upgrader.SwapHandover, Program: "libexec/big",
			Check:        []string{"libexec/big", "--mode=self test", "a'b", "big.upgrade"},
			CheckTimeout: 90 * time.Second, InstancesMax: 5, MinVersion: "1.4~rc1",
			Windows: []window.Window{
				{Days: [7]bool{1: true, 2: true, 3: true, 4: true, 5: true}, From: 120, To: 240},
				{Days: [7]bool{0: true, 6: true}, From: 22 * 60, To: 240, UTC: true},
			},
			Source: fetcher.Options{
				Target: "big", Path: "/srv/big", Patterns: []string{"big_@v.tar.zst", "big_@v.tar.xz", "big_@v"},
				Verify: fetcher.VerifySigned, Keys: []string{keyA, "/etc/upgraderd/big.pub"}, Threshold: 1,
				PollInterval: time.Hour, RandomizedDelay: 5 * time.Minute, SizeMax: 3 << 29, BandwidthMin: 1 << 10, StallTimeout: 500 * time.Millisecond,
			},
			Confirm: upgrader.Confirm{
				Window: 5 * time.Minute,
				Probes: []upgrader.Probe{
					{Kind: upgrader.ProbeHTTP, Address: "https://[::1]:8443/healthz?deep=1"},
					{Kind: upgrader.ProbeHTTP, Address: "http://localhost/"},
					{Kind: upgrader.ProbeTCP, Address: "127.0.0.1:8080"},
					{Kind: upgrader.ProbeTCP, Address: "[::1]:8080"},
					{Kind: upgrader.ProbeUnix, Address: "/run/big.sock"},
					{Kind: upgrader.ProbeUnix, Address: "/run/big.sock"},
					{Kind: upgrader.ProbeUnix, Address: "@big"},
					{Kind: upgrader.ProbeExec, Command: []string{"/usr/bin/big-check", "--fast"}},
				},
				ProbeInterval: 10 * time.Second, ProbeTimeout: 2 * time.Second, ProbeFailuresMax: 1,
			},
		},
	}
	if diff := cmp.Diff(want, targets); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, w := range want {
		got, ds := Load(root, w.Name)
		if diff := cmp.Diff(w, got); diff != "" || len(ds) > 0 {
			t.Errorf("Load(%s): %v -want +got\n%s", w.Name, ds, diff)
		}
	}
}

// kindKeys are those that not every kind of source knows.
func kindKeys() (all []string) {
	for _, k := range keysOfKinds {
		all = append(all, k.keys...)
	}
	return all
}

// TestBucketKeys fills the fields of a bucket, which has keys of a file or of a
// role.
func TestBucketKeys(t *testing.T) {
	text := strings.Replace(small, "https://example.org/app", "s3://releases/app", 1)
	plain := one(t, text)
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/app.upgrade", Data: []byte(text + "CredentialFile=/etc/credstore/aws\nRegion=eu-central-1\nEndpoint=https://s3.example.com\nAddressingStyle=virtual\n")},
		{Name: "etc/upgraderd/role.upgrade", Data: []byte(strings.Replace(text, "app.service", "role.service", 1) + "InstanceRole=yes\n")},
		{Name: "etc/credstore/aws", Data: []byte("[default]\naws_access_key_id = AK\naws_secret_access_key = secret\n")},
	})
	got, ds := Load(root, "app")
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	want, _ := Load(plain, "app")
	want.File, got.File = "", ""
	s := &want.Source
	s.CredentialFile, s.Region, s.Endpoint, s.AddressingStyle = "/etc/credstore/aws", "eu-central-1", "https://s3.example.com", "virtual"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got, ds := Load(root, "role"); len(ds) > 0 || !got.Source.InstanceRole {
		t.Errorf("InstanceRole=yes: %v", ds)
	}
}

// TestCommandPath has root own the command, and nobody else write it.
func TestCommandPath(t *testing.T) {
	text := strings.Replace(small, "https://example.org/app", "exec:/usr/local/lib/app-source", 1)
	root := plant(t, []txtar.File{{Name: "etc/upgraderd/app.upgrade", Data: []byte(text)}, {Name: "usr/local/lib/app-source", Data: []byte("#!/bin/sh\n")}})
	program := filepath.Join(root, "usr/local/lib/app-source")
	for _, c := range []struct {
		mode os.FileMode
		want string
	}{{0o755, ""}, {0o644, "not executable"}, {0o775, "write"}, {0o757, "write"}} {
		if err := os.Chmod(program, c.mode); err != nil {
			t.Fatal(err)
		}
		target, ds := Load(root, "app")
		if (target != nil) != (c.want == "") || c.want != "" && !strings.Contains(ds.Err().Error(), c.want) {
			t.Errorf("mode %o: %v", c.mode, ds)
		}
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if target, ds := Load(root, "app"); target != nil || !strings.Contains(ds.Err().Error(), "Path=: ") {
		t.Errorf("a command that is not there: %v", ds)
	}
	if target, ds := Peek(root, "app"); target == nil || target.Source.Path != "exec:/usr/local/lib/app-source" {
		t.Errorf("peeked at %v, %v", target, ds)
	}
	if target, ds := Peek(one(t, text+"Verify=tuf\nRoot=/etc/keys/root.json\n"), "app"); target != nil || !strings.Contains(ds.Err().Error(), "a command has no directories") {
		t.Errorf("a repository by a command: %v", ds)
	}
}

// TestForgeKeys fills the fields of a forge.
func TestForgeKeys(t *testing.T) {
	text := strings.Replace(small, "https://example.org/app", "github://acme/app", 1)
	got, ds := Load(one(t, text+"Endpoint=https://ghe.example.com/api/v3\nPreRelease=yes\n"), "app")
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	if s := got.Source; s.Endpoint != "https://ghe.example.com/api/v3" || !s.PreRelease {
		t.Errorf("%+v", s)
	}
	if got, ds = Load(one(t, text+"Tag=stable\n"), "app"); len(ds) > 0 || got.Source.Tag != "stable" {
		t.Errorf("Tag=stable: %v", ds)
	}
}

// A field that no key fills would be a promise nobody keeps.
func TestEveryFieldHasAKey(t *testing.T) {
	var text strings.Builder
	for _, s := range sections(Keys()) {
		fmt.Fprintf(&text, "[%s]\n", s)
		for _, k := range Keys() {
			value := k.Example
			switch {
			case k.Section != s, k.Name == "Root", k.Name == "LoginFile", k.Name == "Manifest", k.Name == "Config", // in the place of keys, of a token, of patterns, of a program
				slices.Contains(kindKeys(), k.Name):
				continue
			case k.Name == "TokenFile":
				value = "/etc/credstore/token"
			case k.Name == "CertificateFile":
				value = "/etc/pki/good.crt"
			case k.Name == "PrivateKeyFile":
				value = "/etc/credstore/good.key"
			case k.Name == "Key":
				value = keyA + " " + keyB + " " + keyC
			case k.Name == "RevokedKey":
				value = keyC
			case k.Name == "CAFile":
				value = "/etc/keys/ca.pem"
			case k.Name == "Verify":
				value = "signed"
			}
			fmt.Fprintf(&text, "%s=%s\n", k.Name, value)
		}
	}
	files := []txtar.File{{Name: "etc/upgraderd/app.upgrade", Data: []byte(text.String())}}
	for _, archive := range []string{"testdata/lint/trust.txt", "testdata/lint/access.txt"} {
		a, err := txtar.ParseFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if !strings.HasPrefix(f.Name, "etc/upgraderd/") && !strings.Contains(f.Name, " -> ") {
				files = append(files, f)
			}
		}
	}
	files = append(files, txtar.File{Name: "etc/machine-id", Data: []byte("0123456789abcdef0123456789abcdef\n")})
	root := plant(t, files)
	target, ds := Load(root, "app")
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	var zero func(name string, v reflect.Value)
	zero = func(name string, v reflect.Value) {
		if name == "Target.Source.Seen" {
			return // the machine's memory, not the operator's word
		}
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				zero(name+"."+v.Type().Field(i).Name, v.Field(i))
			}
			return
		}
		if slices.Contains(kindKeys(), strings.TrimPrefix(name, "Target.Source.")) {
			return
		}
		switch name {
		case "Target.Config", "Target.Source.Root", "Target.Source.LoginFile", "Target.Source.NoManifest": // see above
		case "Target.Source.StateDir", "Target.Source.Command", "Target.Source.Bases": // the daemon knows where, how, and from what
		default:
			if v.IsZero() {
				t.Errorf("%s is not filled by any key", name)
			}
		}
	}
	zero("Target", reflect.ValueOf(*target))
}

// The target of upgraderd itself has one name, one unit and one program, and is
// wanted as soon as root has a file for it, in order or not.
func TestOwn(t *testing.T) {
	const source = "[Source]\nPath=https://example.org/upgraderd\nMatchPattern=upgraderd_@v\nKey=RWQ6hEqFjLN+XxRQvXZno7WQYh8CvDZxVMG6iBPJsAJQRDfBjnMbD7c8\n"
	cases := []struct {
		name, file, text, want string
		has                    bool
	}{
		{"good", "upgraderd", "Unit=upgraderd.service\n", "", true},
		{"restart", "upgraderd", "Unit=upgraderd.service\nSwap=restart\n", "", true},
		{"none", "upgraderd", "Unit=upgraderd.service\nSwap=none\n", "", true},
		{"handover", "upgraderd", "Unit=upgraderd.service\nSwap=handover\n", "upgraderd.upgrade:3: Swap=handover: upgraderd.service has no sockets", true},
		{"program", "upgraderd", "Unit=upgraderd.service\nProgram=bin/other\n", "upgraderd.upgrade:3: Program=bin/other: ", true},
		{"another unit", "upgraderd", "Unit=app.service\n", "upgraderd.upgrade:2: the target upgraderd is for upgraderd itself", true},
		{"another name", "self", "Unit=upgraderd.service\n", "self.upgrade:2: Unit=: upgraderd.service is upgraderd itself", false},
		{"torn", "upgraderd", "Unit\n", "upgraderd.upgrade:2: ", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root := plant(t, []txtar.File{{Name: "etc/upgraderd/" + c.file + ".upgrade", Data: []byte("[Upgrade]\n" + c.text + source)}})
			target, ds := Load(root, c.file)
			if (target != nil) != (c.want == "") || c.want != "" && (len(ds) == 0 || !strings.Contains(ds[0].String(), c.want)) {
				t.Errorf("got %v, %v; want %q", target, ds, c.want)
			}
			if target != nil && target.Program != upgrader.OwnProgram {
				t.Errorf("program is %s, want %s", target.Program, upgrader.OwnProgram)
			}
			if got := Has(root, upgrader.OwnTarget); got != c.has {
				t.Errorf("root has it: got %v, want %v", got, c.has)
			}
		})
	}
	masked := plant(t, []txtar.File{{Name: "etc/upgraderd/upgraderd.upgrade"}, {Name: "usr/lib/upgraderd/upgraderd.upgrade", Data: []byte("[Upgrade]\nUnit=upgraderd.service\n" + source)}})
	if Has(masked, upgrader.OwnTarget) {
		t.Error("root has it, though it is masked")
	}
}

func TestTableIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Name] {
			t.Errorf("%s is a key twice: Help could not tell them apart", k.Name)
		}
		seen[k.Name] = true
		if k.Value == "" || k.Help == "" || k.Example == "" || k.set == nil {
			t.Errorf("%s= is not described: %+v", k.Name, k)
		}
		if !strings.HasSuffix(k.Help, ".") {
			t.Errorf("the help of %s= does not end in a full stop", k.Name)
		}
		if strings.HasSuffix(k.Name, "Sec") != (k.Value == "TIME" && k.Name != "MaxAge") { // what is counted in days needs no unit
			t.Errorf("%s= takes %s: times, and only times, end in Sec", k.Name, k.Value)
		}
		if k.Required && k.Default != "" {
			t.Errorf("%s= is required and has a default", k.Name)
		}
	}
}

// TestOneFileForAFleet writes one file for hosts of several kinds.
func TestOneFileForAFleet(t *testing.T) {
	text := strings.NewReplacer("https://example.org/app", "https://dl.example.org/%{goos}/%o-%w/%a", "MatchPattern=app_@v", "Mirror=https://example.org/%{machine}/\nMatchPattern=app_@v_%{goos}_%{goarch}").Replace(small)
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/app.upgrade", Data: []byte(text)},
		{Name: "etc/os-release", Data: []byte("ID=debian\nVERSION_ID=\"12\"\n")},
	})
	target, ds := Load(root, "app")
	if err := ds.Err(); err != nil {
		t.Fatal(err)
	}
	uname, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := target.Source
	got := []string{src.Path, src.Mirrors[0], src.Patterns[0]}
	want := []string{
		"https://dl.example.org/linux/debian-12/" + architecture(runtime.GOARCH),
		"https://example.org/" + strings.TrimSpace(string(uname)) + "/",
		"app_@v_linux_" + runtime.GOARCH,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSpecifiers(t *testing.T) {
	files := []txtar.File{
		{Name: "etc/upgraderd/web@.upgrade", Data: []byte(small + "X-T=1\n[Upgrade]\nUnit=%p-%i.service\nCheck=bin/x %n %N %p %i %o %w %W %A %B %M %m %E %S %t %% %%i '%o %o'\n[Source]\nMatchPattern=%p_@v_%a\n")},
		{Name: "etc/upgraderd/web@blue.upgrade -> web@.upgrade"},
		{Name: "etc/machine-id", Data: []byte("0123456789abcdef0123456789abcdef\n")},
		{Name: "usr/lib/os-release", Data: []byte("ID=debian\nVERSION_ID=\"12\"\nIMAGE_ID='a b'\nIMAGE_VERSION=7\n")},
	}
	root := plant(t, files)
	target, ds := Load(root, "web@blue")
	if err := ds.Err(); err != nil {
		t.Fatal(err)
	}
	want := []string{"bin/x", "web@blue.upgrade", "web@blue", "web", "blue", "debian", "12", "", "7", "", "a b",
		"0123456789abcdef0123456789abcdef", "/etc", "/var/lib", "/run", "%", "%i", "debian debian"}
	if diff := cmp.Diff(want, target.Check); diff != "" {
		t.Error(diff)
	}
	if target.Unit != "web-blue.service" || target.Program != "bin/web" {
		t.Errorf("unit %s, program %s", target.Unit, target.Program)
	}
	if want := "web_@v_" + architecture(runtime.GOARCH); target.Source.Patterns[1] != want {
		t.Errorf("pattern %s, want %s", target.Source.Patterns[1], want)
	}
	s := scope{tree: treeAt(root), name: "web@blue"}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	short, _, _ := strings.Cut(hostname, ".")
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.expand("%H %l %v %d")
	if want := hostname + " " + short + " " + strings.TrimSpace(string(release)) + " /run/credentials/upgraderd.service"; err != nil || got != want {
		t.Errorf("%%H %%l %%v %%d is %q, %v; want %q", got, err, want)
	}
	// What the host lacks is an error of the value that asks for it.
	if err := os.Remove(filepath.Join(root, "etc/machine-id")); err != nil {
		t.Fatal(err)
	}
	_, ds = Load(root, "web@blue")
	if err := ds.Err(); err == nil || !strings.Contains(err.Error(), "web@blue.upgrade:10: Check=: resolve %m") {
		t.Errorf("without a machine id: %v", err)
	}
}

// Passwords and tokens do not reach a message, whatever else is wrong.
func TestDiagnosticsKeepSecrets(t *testing.T) {
	const secret = "hunter2"
	for _, path := range []string{
		"https://u:hunter2@h/", "https://u:hunter2/@h/", "https://u:hunter2@h:x/", "https://u:hunter2 @h/", "https://u:hunter2%zz@h/",
		"ftp://u:hunter2@h/", "u:hunter2@h/", "u:hunter2://h", "//u:hunter2@h/..", "https://h/?token=hunter2", "https://h/#hunter2",
		"http://u:hunter2@h/", "https:u:hunter2@h/", "hunter2", "https://u:hunter2@[::1/", "https://u:hunter2@h/%z",
	} {
		for _, text := range []string{
			strings.Replace(small, "https://example.org/app", path, 1),
			strings.Replace(small, "https://example.org/app", path, 1) + "Verify=no\n",
			small + "[Confirm]\nProbe=" + path + "\n",
		} {
			if strings.Contains(text, "Probe=https://h/") {
				continue // a probe may have a query
			}
			target, ds := Load(one(t, text), "app")
			if target != nil {
				t.Errorf("%s is taken", path)
			}
			if err := ds.Err(); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s gives %v", path, err)
			}
		}
	}
}

// A file that is not read may be there, where another is gone for sure.
func TestDoubt(t *testing.T) {
	broken := Diagnostics{{Target: "app"}, {Target: "fine", Warning: true}}
	if !broken.Doubt("app") || broken.Doubt("fine") || broken.Doubt("other") {
		t.Errorf("of %v only app may be there", broken)
	}
	if !(Diagnostics{{File: "/etc/upgraderd"}}).Doubt("other") {
		t.Error("a directory that cannot be read may hold it")
	}
}

// What this host cannot read for now is told from what is wrong with a file.
func TestUnread(t *testing.T) {
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/app.upgrade", Data: []byte(small)},
		{Name: "etc/upgraderd/broken.upgrade", Data: []byte("[Upgrade]\nNonsense=1\n")},
	})
	targets, ds := LoadAll(root)
	if len(targets) != 1 || len(ds) == 0 || len(ds.Unread()) > 0 {
		t.Fatalf("with all that it needs: %d targets, %v, unread %v", len(targets), ds, ds.Unread())
	}
	var was syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	none := was
	none.Cur = 0
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
	targets, ds = LoadAll(root)
	app, of := Load(root, "app")
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	if len(targets) != 0 || len(ds.Unread()) == 0 || !ds.Doubt("app") {
		t.Errorf("without a descriptor: %v, %v", targets, ds)
	}
	if app != nil || len(of.Unread()) != len(of) {
		t.Errorf("without a descriptor: %v, %v", app, of)
	}
}

func TestUnsafeFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, root, file string)
		want string
	}{
		{"fifo", func(t *testing.T, _, file string) { check(t, os.Remove(file)); check(t, syscall.Mkfifo(file, 0o644)) }, "not a regular file"},
		{"world-writable", func(t *testing.T, _, file string) { check(t, os.Chmod(file, 0o666)) }, "app.upgrade: not read, since mode 0666 lets others write ROOT/etc/upgraderd/app.upgrade"},
		{"too large", func(t *testing.T, _, file string) { check(t, os.Truncate(file, 1<<20+1)) }, "more than 1048576 bytes"},
		{"sparse and huge", func(t *testing.T, _, file string) { check(t, os.Truncate(file, 1<<40)) }, "more than 1048576 bytes"},
		{"directory as drop-in", func(t *testing.T, _, file string) { check(t, os.MkdirAll(file+".d/x.conf", 0o755)) }, "x.conf: not a regular file"},
		{"too many drop-ins", func(t *testing.T, _, file string) {
			check(t, os.Mkdir(file+".d", 0o755))
			for i := range maxDropIns + 1 {
				check(t, os.WriteFile(fmt.Sprintf("%s.d/%d.conf", file, i), []byte("#\n"), 0o644))
			}
		}, "101 drop-ins, at most 100"},
		{"group-writable key", func(t *testing.T, root, file string) {
			check(t, os.WriteFile(root+"/key.pub", []byte(keyB), 0o644))
			check(t, os.Chmod(root+"/key.pub", 0o664))
			check(t, os.WriteFile(file, []byte(small+"Key=/key.pub\n"), 0o644))
		}, `app.upgrade:7: Key=: read "/key.pub": not read, since mode 0664 lets others write ROOT/key.pub`},
		{"key from a fifo", func(t *testing.T, root, file string) {
			check(t, syscall.Mkfifo(root+"/key.pub", 0o644))
			check(t, os.WriteFile(file, []byte(small+"Key=/key.pub\n"), 0o644))
		}, `app.upgrade:7: Key=: read "/key.pub": not a regular file`},
		{"megabyte value", func(t *testing.T, _, file string) {
			check(t, os.WriteFile(file, []byte(small+"Swap="+strings.Repeat("x", 1<<20-1000)+"\n"), 0o644))
		}, "app.upgrade:7: Swap= is unknown in [Source]"},
		{"ten thousand lines", func(t *testing.T, _, file string) {
			check(t, os.WriteFile(file, []byte(small+strings.Repeat("x\n", 10000)), 0o644))
		}, "the rest is not reported"},
		{"ten thousand unknown keys", func(t *testing.T, _, file string) {
			check(t, os.WriteFile(file, []byte(small+strings.Repeat("x=1\n", 10000)), 0o644))
		}, "the rest is not reported"},
		{"many patterns", func(t *testing.T, _, file string) {
			check(t, os.WriteFile(file, []byte(small+strings.Repeat("MatchPattern=a_@v\n", 100)), 0o644))
		}, "MatchPattern=: 33 values, at most 32"},
		{"many probes", func(t *testing.T, _, file string) {
			check(t, os.WriteFile(file, []byte(small+"[Confirm]\n"+strings.Repeat("Probe=unix:/x\n", 100)), 0o644))
		}, "Probe=: more than 32 probes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := plant(t, []txtar.File{
				{Name: "etc/upgraderd/app.upgrade", Data: []byte(small)},
				{Name: "etc/upgraderd/other.upgrade", Data: []byte(strings.Replace(small, "app.service", "other.service", 1))},
			})
			tt.make(t, root, root+"/etc/upgraderd/app.upgrade")
			targets, ds := LoadAll(root)
			if len(targets) != 1 || targets[0].Name != "other" {
				t.Errorf("the other target is not followed: %v", targets)
			}
			err := ds.Err()
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), root, "ROOT"), tt.want) {
				t.Fatalf("got %.500v, want %q", err, tt.want)
			}
			if text := err.Error(); len(text) > 40_000 {
				t.Errorf("the errors have %d bytes", len(text))
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A file name cannot make a second line of a message.
func TestHostileNames(t *testing.T) {
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/a\nb.upgrade", Data: []byte(small)},
		{Name: "etc/upgraderd/app.upgrade", Data: []byte(small)},
		{Name: "etc/upgraderd/app.upgrade.d/x\x1b[31m\n.conf", Data: []byte("[Upgrade]\nb\x07ad=1\nInstancesMax=\x07\n")},
	})
	var out strings.Builder
	_, ds := Lint(root)
	check(t, ds.Print(&out))
	if len(ds.Errors()) == 0 {
		t.Fatal("no error")
	}
	for _, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
		hint, isHint := strings.CutPrefix(line, "\t")
		if strings.ContainsAny(hint, "\x1b\x07\t") || !isHint && !strings.Contains(line, " [CONFIG_") {
			t.Errorf("line %q", line)
		}
	}
}

func TestTooManyTargets(t *testing.T) {
	root := t.TempDir()
	dir := root + "/etc/upgraderd"
	check(t, os.MkdirAll(dir, 0o755))
	for i := range maxTargets + 1 {
		check(t, os.WriteFile(fmt.Sprintf("%s/t%04d.upgrade", dir, i), []byte(strings.Replace(small, "app.service", fmt.Sprintf("t%d.service", i), 1)), 0o644))
	}
	targets, ds := LoadAll(root)
	if err := ds.Err(); len(targets) != maxTargets || err == nil || !strings.Contains(err.Error(), "1001 targets, at most 1000") {
		t.Errorf("%d targets, %v", len(targets), err)
	}
}

// A daemon reads its files again and again: nothing is kept, nothing leaks,
// and what is on disk now is what counts.
func TestReload(t *testing.T) {
	root := lintFiles(t, "values")
	file := root + "/etc/upgraderd/app.upgrade"
	before := descriptors(t)
	for i := range 50 {
		swap := []string{"auto", "none"}[i%2]
		check(t, os.WriteFile(file, []byte(strings.Replace(small, "[Source]", "Swap="+swap+"\n[Source]", 1)), 0o644))
		target, ds := Load(root, "app")
		if target == nil || string(target.Swap) != swap {
			t.Fatalf("round %d: %v, %v", i, target, ds)
		}
		if _, ds := LoadAll(root); len(ds.Of("app")) != 0 {
			t.Fatal(ds.Of("app"))
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(fds)
}

func TestConcurrentUse(t *testing.T) {
	root := lintFiles(t, "search")
	want, wantDs := LoadAll(root)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, ds := LoadAll(root)
			if !cmp.Equal(want, got) || !cmp.Equal(wantDs, ds) {
				t.Error("two readings of the same files differ")
			}
		})
	}
	wg.Wait()
}

func TestRelativeRoot(t *testing.T) {
	root := one(t, small)
	t.Chdir(filepath.Dir(root))
	target, ds := Load(filepath.Base(root), "app")
	if target == nil || target.File != root+"/etc/upgraderd/app.upgrade" {
		t.Errorf("%v, %v", target, ds)
	}
}

// Links of a tree stay in the tree.
func TestLinksStayInside(t *testing.T) {
	outside := t.TempDir() + "/secret.upgrade"
	check(t, os.WriteFile(outside, []byte(small), 0o644))
	root := plant(t, []txtar.File{
		{Name: "etc/upgraderd/a.upgrade -> " + outside},
		{Name: "etc/upgraderd/b.upgrade -> ../../../../../../../../../../.." + outside},
	})
	targets, ds := LoadAll(root)
	if len(targets) != 0 || len(ds.Errors()) != 2 {
		t.Errorf("%v, %v", targets, ds)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestPrintReportsItsWriter(t *testing.T) {
	if _, ds := Lint(t.TempDir()); ds.Print(failingWriter{}) == nil {
		t.Error("a writer that fails is not reported")
	}
}

func FuzzLoad(f *testing.F) {
	archives, err := filepath.Glob("testdata/lint/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if strings.HasSuffix(file.Name, suffix) {
				f.Add(string(file.Data))
			}
		}
	}
	root := f.TempDir()
	file := root + "/etc/upgraderd/app.upgrade"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		check(t, os.WriteFile(file, []byte(text), 0o644))
		target, ds := Load(root, "app")
		for _, d := range ds {
			if strings.ContainsAny(d.String()+d.Hint, "\n\r\x00\x1b") || d.Line < 0 || d.Code == "" {
				t.Errorf("diagnostic %+v", d)
			}
		}
		if target == nil {
			if ds.Err() == nil {
				t.Error("no target, and no reason")
			}
			return
		}
		src, c := target.Source, target.Confirm
		if fetch, err := fetcher.New(src, nil); err != nil {
			t.Errorf("the fetcher does not take what was read: %v", err)
		} else {
			fetch.Close()
		}
		switch {
		case !strings.HasSuffix(target.Unit, ".service") || target.Unit == upgrader.OwnUnit && target.Name != upgrader.OwnTarget:
			t.Errorf("unit %q", target.Unit)
		case !filepath.IsLocal(target.Program):
			t.Errorf("program %q", target.Program)
		case src.Verify == fetcher.VerifySigned && len(src.Keys) == 0, src.Verify == fetcher.VerifyTUF && src.Root == "",
			src.Verify != fetcher.VerifySigned && src.Verify != fetcher.VerifyTUF && src.Verify != fetcher.VerifyNo:
			t.Errorf("trust %+v", src)
		case src.Verify == fetcher.VerifyNo && strings.HasPrefix(strings.ToLower(src.Path), "http:"):
			t.Errorf("unsigned over http: %q", src.Path)
		case (len(src.Patterns) == 0) != src.NoManifest, len(src.Patterns) > maxItems, len(src.Keys) > maxItems, len(c.Probes) > maxItems:
			t.Errorf("lists %+v %+v", src, c)
		case src.SizeMax < 1, src.PollInterval < time.Second, src.RandomizedDelay < 0, src.StallTimeout <= 0,
			src.PollInterval > year, src.RandomizedDelay > year, target.CheckTimeout <= 0,
			c.Window <= 0, c.ProbeInterval <= 0, c.ProbeTimeout <= 0, c.ProbeFailuresMax < 1, target.InstancesMax < 2:
			t.Errorf("limits %+v", target)
		case len(target.Check) > 0 && !filepath.IsLocal(target.Check[0]) && !filepath.IsAbs(target.Check[0]):
			t.Errorf("check %q", target.Check)
		}
	})
}

func TestPeekOpensNoKeys(t *testing.T) {
	root := one(t, small+"Key=/nowhere.pub\nCAFile=/nowhere.pem\n")
	if target, ds := Load(root, "app"); target != nil || len(ds.Errors()) != 2 {
		t.Errorf("Load gives %v, %v", target, ds)
	}
	target, ds := Peek(root, "app")
	if target == nil || len(ds) != 0 {
		t.Fatal(ds)
	}
	if diff := cmp.Diff([]string{keyA, "/nowhere.pub"}, target.Source.Keys); diff != "" || target.Source.CAFile != "/nowhere.pem" {
		t.Error(target.Source.CAFile, diff)
	}
	if targets, ds := PeekAll(root); len(ds) != 0 || !cmp.Equal(targets, []*upgrader.Target{target}) {
		t.Errorf("PeekAll gives %v, %v", targets, ds)
	}
	if target, ds := Peek(one(t, small+"Verify=sometimes\n"), "app"); target != nil || len(ds.Errors()) != 1 {
		t.Errorf("a bad value gives %v, %v", target, ds)
	}
}

// No check may be promised more time than its unit has.
func TestCheckTimeoutFitsItsUnit(t *testing.T) {
	text, err := os.ReadFile("../../units/systemd/upgraderd-check@.service")
	check(t, err)
	f, problems := unitfile.Parse(text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, s := range f.Sections {
		for _, a := range s.Assignments {
			if a.Key == "TimeoutStartSec" {
				if d, err := unitfile.TimeSpan(a.Value); err != nil || d != checkMost {
					t.Errorf("the unit ends a check after %s (%v), CheckTimeoutSec= takes up to %v", a.Value, err, checkMost)
				}
				return
			}
		}
	}
	t.Error("the unit has no TimeoutStartSec=")
}
