package adopt

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upgraderd/upgraderd/activation/overseer/origin"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

var update = flag.Bool("update", false, "write the golden files anew")

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes a file into a temporary directory.
func put(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(file, []byte(text), mode))
	return file
}

// service is one as most packages have it, with systemd's defaults.
func service(argv ...string) Service {
	return Service{
		Settings: systemd.Settings{
			Facts: systemd.Facts{
				ID: "app.service", LoadState: "loaded", ActiveState: "active", MainPID: 7, Type: "simple",
				ExecStart: [][]string{argv}, TimeoutStart: 90 * time.Second, TimeoutStop: 90 * time.Second,
			},
			FragmentPath: "/usr/lib/systemd/system/app.service", Commands: []systemd.Command{{Path: argv[0], Args: argv}},
			Restart: "no", RestartDelay: 100 * time.Millisecond, StartLimitInterval: 10 * time.Second, StartLimitBurst: 5,
			KillMode: "control-group", KillSignal: 15, NotifyAccess: "none", OOMPolicy: "stop", RuntimeDirectoryPreserve: "no",
		},
		Listening: []Address{{"Stream", "0.0.0.0:80"}, {"Stream", "[::]:80"}},
	}
}

// overseen is a service whose program fetches by itself.
func overseen(program string, o origin.Origin) Service {
	s := service(program)
	s.Origin = &o
	return s
}

// What is written, for services of several kinds.
func TestPlanFiles(t *testing.T) {
	knows := put(t, "app", "\x7fELF … getenv LISTEN_FDS …", 0o755)
	not := put(t, "app", "\x7fELF", 0o755)
	script := put(t, "serve.py", "#!/usr/bin/python3\nimport systemd.daemon; listen_fds()\n", 0o755)
	for name, c := range map[string]struct {
		s Service
		w Wishes
	}{
		"takes": {s: service(knows, "-v", "100%", "a b", "$OPTIONS"), w: Wishes{Args: []string{"--sockets"}}},
		"notify": {s: func() Service {
			s := service(knows)
			s.Type, s.NotifyAccess, s.User, s.Restart, s.KillMode, s.KillSignal = "notify", "main", "app", "always", "mixed", 3
			s.RuntimeDirectory, s.Stops, s.RestartDelay, s.TimeoutStart, s.TimeoutStop = []string{"app"}, true, 5*time.Second, 30*time.Second, -1
			s.PIDFile = "/run/app.pid"
			s.SyslogIdentifier, s.Families, s.NoExecPaths = "own", []string{"AF_INET"}, []string{"/"}
			return s
		}()},
		"socket": {s: func() Service {
			s := service(not)
			s.User, s.StartLimitInterval, s.TriggeredBy = "app", 0, []string{"a.socket", "b.socket"}
			s.Sockets = []listener{
				{Unit: "a.socket", LoadState: "loaded", Backlog: 128, TriggerInterval: 2 * time.Second, Listens: [][2]string{{"Stream", "/run/a"}}},
				{Unit: "b.socket", LoadState: "loaded", Backlog: 4096, Listens: [][2]string{{"Stream", "/run/b"}}},
			}
			s.Commands[0].Prefix = "-"
			return s
		}(), w: Wishes{Target: "web", Source: "https://example.org/app", Keys: []string{"/etc/a key.pub"}, Patterns: []string{"app_@v", "a_@v"}}},
		"restart": {s: service(not, "-d", "$FLAGS"), w: Wishes{Unsigned: true}},
		"renamed": {s: func() Service {
			s := service(knows, "-d")
			s.Commands[0].Args = []string{"other", "-d"}
			return s
		}()},
		"script":      {s: service("/usr/bin/python3", script, "80")},
		"interpreted": {s: service("/usr/bin/python3", "-u", script, "80")},
		"overseer http": {s: overseen(knows, origin.Origin{
			Kind: "http", Path: "https://example.org/100%/app?x=1", Interval: 5 * time.Minute, Authorized: true, Keys: 2, PreUpgrade: true, NoRestartAfterFetch: true})},
		"overseer file":     {s: overseen(knows, origin.Origin{Kind: "file", Path: "/srv/app/app.next", Interval: time.Second})},
		"overseer s3":       {s: overseen(knows, origin.Origin{Kind: "s3", Path: "s3://bucket/dir/app", Region: "eu-north-1", Endpoint: "https://s3.example.org", Interval: time.Minute})},
		"overseer github":   {s: overseen(knows, origin.Origin{Kind: "github", Path: "github://acme/app", Interval: 5 * time.Minute})},
		"overseer function": {s: overseen(knows, origin.Origin{Kind: "function"})},
		"overseer told":     {s: overseen(knows, origin.Origin{Kind: "file", Path: "/srv/app/app.next"}), w: Wishes{Source: "https://example.org/app"}},
		"proxy":             {s: service(not, "-d"), w: Wishes{Proxy: "127.0.0.1:18080", Args: []string{"--port=18080"}, Env: []string{"A=100% b", "B="}, Unsigned: true}},
		"given":             {s: service(knows), w: Wishes{Given: &upgrader.Target{Name: "mine", Program: "libexec/app", Swap: upgrader.SwapAuto}, Listen: []string{"1234"}}},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := Plan(c.s, c.w, System())
			check(t, err)
			got := string(a.Swap) + ", since " + a.Why + "\n" + strings.Join(a.Remarks, "\n") + "\n" + a.Diff()
			for _, program := range []string{knows, not, script} {
				got = strings.ReplaceAll(got, filepath.Dir(program), "/opt")
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				check(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			check(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got (-update writes it anew)\n%s", diff)
			}
		})
	}
}

// A service says of its fetcher what it likes. Nothing of it becomes a line or a
// command.
func TestHostileOrigin(t *testing.T) {
	for name, o := range map[string]origin.Origin{
		"a command":        {Kind: "http", Path: "exec:/bin/true"},
		"a relative file":  {Kind: "file", Path: "app"},
		"a further line":   {Kind: "http", Path: "https://example.org/app\nKey=/tmp/key"},
		"no end of a line": {Kind: "http", Path: `https://example.org/app\`},
		"a space":          {Kind: "s3", Path: "s3://bucket/a b"},
		"a quote":          {Kind: "github", Path: `github://acme/"app`},
		"an escape":        {Kind: "http", Path: "https://example.org/\u009b2J"},
		"a region":         {Kind: "s3", Path: "s3://bucket/app", Region: "x\nKey=/tmp/key"},
		"an endpoint":      {Kind: "s3", Path: "s3://bucket/app", Endpoint: "https://example.org\t"},
		"another kind":     {Kind: "exec", Path: "/bin/true"},
		"a wrong kind":     {Kind: "s3", Path: "https://example.org/app"},
	} {
		a, err := Plan(overseen(put(t, "app", "\x7fELF LISTEN_FDS", 0o755), o), Wishes{}, System())
		check(t, err)
		if a.Source != "/srv/app" || !strings.Contains(strings.Join(a.Remarks, "\n"), "of no use; give the source") {
			t.Errorf("%s: the source is %s, remarks %q", name, a.Source, a.Remarks)
		}
	}
}

// What cannot be adopted, or not so.
func TestPlanRefuses(t *testing.T) {
	program := put(t, "app", "\x7fELF", 0o755)
	for name, c := range map[string]struct {
		change func(*Service)
		w      Wishes
		want   string
	}{
		"not found":       {change: func(s *Service) { s.LoadState = "not-found" }, want: "does not exist"},
		"masked":          {change: func(s *Service) { s.LoadState = "masked" }, want: "systemctl unmask"},
		"bad":             {change: func(s *Service) { s.LoadState, s.LoadError = "bad-setting", "no ExecStart" }, want: "no ExecStart"},
		"ours":            {change: func(s *Service) { s.ID = "upgraderd-boot.service" }, want: "unit of upgraderd itself"},
		"transient":       {change: func(s *Service) { s.FragmentPath = "/run/systemd/transient/app.service" }, want: "no unit file"},
		"supervised":      {change: func(s *Service) { s.ExecStart[0] = []string{"upgraderd", "supervise"} }, want: "already"},
		"oneshot":         {change: func(s *Service) { s.Type = "oneshot" }, want: "oneshot"},
		"nothing runs":    {change: func(s *Service) { s.Commands = nil }, want: "0 lines of ExecStart="},
		"root":            {change: func(s *Service) { s.RootDirectory = "/x" }, want: "root directory of its own"},
		"user":            {change: func(s *Service) { s.User = "upgraderd" }, want: "owns the releases"},
		"accept":          {change: func(s *Service) { s.Sockets = []listener{{Unit: "a.socket", Accept: true}} }, want: "a.socket has Accept=yes"},
		"forking":         {change: func(s *Service) { s.Type = "forking" }, w: Wishes{Swap: upgrader.SwapHandover}, want: "goes to the background"},
		"dbus":            {change: func(s *Service) { s.Type = "dbus" }, w: Wishes{Swap: upgrader.SwapHandover}, want: "on the bus"},
		"deaf":            {change: func(s *Service) { s.Listening = nil }, w: Wishes{Swap: upgrader.SwapHandover}, want: "--listen=ADDRESS"},
		"no program":      {change: func(s *Service) { s.Commands[0].Path = "/nonexistent" }, want: "no such file"},
		"proxy handover":  {change: func(*Service) {}, w: Wishes{Proxy: "127.0.0.1:1", Swap: upgrader.SwapHandover}, want: "--swap=handover is none"},
		"proxy socket":    {change: func(s *Service) { s.Sockets = []listener{{Unit: "a.socket"}} }, w: Wishes{Proxy: "127.0.0.1:1"}, want: "has the socket a.socket"},
		"proxy forking":   {change: func(s *Service) { s.Type = "forking" }, w: Wishes{Proxy: "127.0.0.1:1"}, want: "keep it in the foreground"},
		"proxy untold":    {change: func(*Service) {}, w: Wishes{Proxy: "127.0.0.1:1"}, want: "arguments after --, or --env="},
		"proxy deaf":      {change: func(s *Service) { s.Listening = nil }, w: Wishes{Proxy: "127.0.0.1:1", Args: []string{"-x"}}, want: "--listen=ADDRESS"},
		"proxy datagram":  {change: func(s *Service) { s.Listening[1].Kind = "Datagram" }, w: Wishes{Proxy: "127.0.0.1:1", Args: []string{"-x"}}, want: "streams only"},
		"proxy two ports": {change: func(s *Service) { s.Listening[1].Address = "[::]:81" }, w: Wishes{Proxy: "127.0.0.1:1", Args: []string{"-x"}}, want: "0.0.0.0:80 and [::]:81"},
		"proxy same port": {change: func(*Service) {}, w: Wishes{Proxy: "127.0.0.1:80", Args: []string{"-x"}}, want: "where clients connect"},
		"other":           {change: func(*Service) {}, w: Wishes{Program: "/bin/true"}, want: "no word of ExecStart="},
	} {
		s := service(program)
		c.change(&s)
		if _, err := Plan(s, c.w, System()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestWishes(t *testing.T) {
	for name, w := range map[string]Wishes{
		"a line more":   {Source: "/srv\nVerify=no"},
		"in an arg":     {Args: []string{"a\x00"}},
		"no UTF-8":      {Keys: []string{"\xff"}},
		"both":          {Unsigned: true, Keys: []string{"k"}},
		"relative":      {Program: "bin/app"},
		"never ready":   {Ready: "sometime"},
		"not a signal":  {StopSignal: "PLEASE"},
		"no variable":   {Env: []string{"A B=c"}},
		"no value":      {Env: []string{"A"}},
		"an env's line": {Env: []string{"A=b\nUser=root"}},
		"not here":      {Proxy: "192.0.2.1:80"},
		"no port":       {Proxy: "127.0.0.1:0"},
		"a name":        {Proxy: "localhost:80"},
		"a zone":        {Proxy: "[::1%lo]:80"},
	} {
		if w.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	check(t, Wishes{Ready: "after=2s", StopSignal: "quit", Program: "/bin/app", Keys: []string{"a b"}}.Check())
}

// What is written is what is shown; undone, nothing is left, and what was there
// stays as it was.
func TestWriteAndUndo(t *testing.T) {
	a, err := Plan(service(put(t, "app", "LISTEN_FDS", 0o755)), Wishes{}, System())
	check(t, err)
	for name, c := range map[string]struct {
		before, after func(t *testing.T, root string)
		left          []string
	}{
		"fresh": {},
		"drop-ins of others": {
			before: func(t *testing.T, root string) {
				check(t, os.Mkdir(filepath.Join(root, System().Units, "app.service.d"), 0o755))
				check(t, os.WriteFile(filepath.Join(root, System().Units, "app.service.d/own.conf"), []byte("x"), 0o644))
			},
			left: []string{System().Units + "/app.service.d", System().Units + "/app.service.d/own.conf"},
		},
		"a directory that was empty": {
			before: func(t *testing.T, root string) {
				check(t, os.Mkdir(filepath.Join(root, System().Units, "app.service.d"), 0o755))
			},
			left: []string{System().Units + "/app.service.d"},
		},
		"a drop-in that came later": {
			after: func(t *testing.T, root string) {
				check(t, os.WriteFile(filepath.Join(root, System().Units, "app.service.d/own.conf"), []byte("x"), 0o644))
			},
			left: []string{System().Units + "/app.service.d", System().Units + "/app.service.d/own.conf"},
		},
		"a file that somebody took over": {
			after: func(t *testing.T, root string) {
				check(t, os.WriteFile(filepath.Join(root, "/etc/upgraderd/app.upgrade"), []byte("[Upgrade]\n"), 0o644))
			},
			left: []string{"/etc/upgraderd/app.upgrade"},
		},
		"cut off after the socket": {
			after: func(t *testing.T, root string) {
				check(t, os.RemoveAll(filepath.Join(root, System().Units, "app.service.d")))
				check(t, os.Remove(filepath.Join(root, "/etc/upgraderd/app.upgrade")))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			d, a := Disk{root, System()}, a
			a.Files = append([]File(nil), a.Files...)
			for _, dir := range []string{System().Units, "/etc/upgraderd"} {
				check(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
			}
			if c.before != nil {
				c.before(t, root)
			}
			check(t, d.Adopted(a.Unit))
			check(t, d.Fit(&a))
			check(t, d.Write(a))
			for _, f := range a.Files {
				text, err := os.ReadFile(filepath.Join(root, f.Name))
				if err != nil || string(text) != f.Text {
					t.Errorf("%s: %v, %s", f.Name, err, text)
				}
			}
			if err := d.Adopted(a.Unit); !errors.Is(err, ErrAdopted) {
				t.Errorf("got %v, want ErrAdopted", err)
			}
			if c.after != nil {
				c.after(t, root)
			}
			u, err := d.Undo(a.Unit)
			check(t, err)
			check(t, d.Remove(u))
			var left []string
			check(t, filepath.WalkDir(root, func(name string, e os.DirEntry, err error) error {
				name = strings.TrimPrefix(name, root)
				if strings.Count(name, "/") > 3 || name == "/etc/upgraderd/app.upgrade" {
					left = append(left, name)
				}
				return err
			}))
			if diff := cmp.Diff(c.left, left); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if _, err := d.Undo(a.Unit); !errors.Is(err, ErrNotAdopted) {
				t.Errorf("undone twice: %v", err)
			}
		})
	}
}

// Nothing is overwritten, and what was written before the obstacle goes again.
func TestWriteRefuses(t *testing.T) {
	a, err := Plan(service(put(t, "app", "LISTEN_FDS", 0o755)), Wishes{}, System())
	check(t, err)
	for _, f := range a.Files {
		root := t.TempDir()
		d, a := Disk{root, System()}, a
		a.Files = append([]File(nil), a.Files...)
		for _, f := range a.Files {
			check(t, os.MkdirAll(filepath.Dir(filepath.Join(root, f.Name)), 0o755))
		}
		check(t, os.WriteFile(filepath.Join(root, f.Name), []byte("mine"), 0o644))
		if err := d.Fit(&a); err == nil || !strings.Contains(err.Error(), f.Name+" exists already") {
			t.Errorf("%s: %v", f.Name, err)
		}
		if err := d.Write(a); err == nil {
			t.Errorf("%s was overwritten", f.Name)
		}
		for _, g := range a.Files {
			text, _ := os.ReadFile(filepath.Join(root, g.Name))
			if want := map[bool]string{true: "mine"}[g.Name == f.Name]; string(text) != want {
				t.Errorf("with %s in the way, %s is %q", f.Name, g.Name, text)
			}
		}
	}
}

// A record leads nowhere that adopting does not write.
func TestRecord(t *testing.T) {
	text := System().marker("a.service") + "\n"
	for _, name := range []string{"/etc/passwd", "/etc/systemd/system/../x", "/etc/upgraderd/a/b", "/etc/systemd/system/a.d/b/c", "relative", "/", "/etc/systemd/system", "/etc/systemd/system/a.wants/b"} {
		text += recordLine(name)
	}
	text += recordLine("/etc/upgraderd/a.upgrade") + recordLine("/etc/systemd/system/a.service.d/") + "[Unit]\n" + recordLine("/etc/upgraderd/late.upgrade")
	want := []string{"/etc/upgraderd/a.upgrade", "/etc/systemd/system/a.service.d/"}
	if diff := cmp.Diff(want, System().made([]byte(text))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
