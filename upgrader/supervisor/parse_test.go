package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseReady(t *testing.T) {
	for in, want := range map[string]Ready{
		"notify":             {Kind: ReadyNotify},
		"accepting":          {Kind: ReadyAccepting},
		"after=1m30s":        {Kind: ReadyAfter, After: 90 * time.Second},
		"/bin/check -p 8080": {Kind: ReadyCommand, Command: []string{"/bin/check", "-p", "8080"}},
	} {
		got, err := ParseReady(in)
		if err != nil || got.Kind != want.Kind || got.After != want.After || !slices.Equal(got.Command, want.Command) {
			t.Errorf("ParseReady(%q) = %+v %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", " ", "after", "after=", "after=-1s", "after=0s", "curl localhost", "NOTIFY"} {
		if got, err := ParseReady(in); err == nil {
			t.Errorf("ParseReady(%q) = %+v, want an error", in, got)
		}
	}
}

func TestParseListen(t *testing.T) {
	for in, want := range map[string]Listen{
		"tcp:127.0.0.1:80":       {"tcp", "tcp", "127.0.0.1:80"},
		"web=tcp::80":            {"web", "tcp", ":80"},
		"dns=udp6:[::1]:53":      {"dns", "udp6", "[::1]:53"},
		"s=unix:/run/app/s":      {"s", "unix", "/run/app/s"},
		"s=unix:@abstract":       {"s", "unix", "@abstract"},
		"log=unixgram:/run/a=b:": {"log", "unixgram", "/run/a=b:"},
	} {
		if got, err := ParseListen(in); err != nil || got != want {
			t.Errorf("ParseListen(%q) = %+v %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "tcp", "tcp:", "tcp:80", "=tcp::80", "web=", "unix:relative", "sctp::80", "a b=tcp::80",
		"upgraderd.x=tcp::80", strings.Repeat("n", 256) + "=tcp::80", "tcp:[::1:80",
	} {
		if got, err := ParseListen(in); err == nil {
			t.Errorf("ParseListen(%q) = %+v, want an error", in, got)
		}
	}
}

// What a worker can send us, whatever it is, must not get past these bounds.
func FuzzNotification(f *testing.F) {
	for _, s := range []string{
		"RELOADING=1\nMONOTONIC_USEC=18446744073709551615", "READY=1\nERRNO=ENOENT", "ERRNO=-1\nMONOTONIC_USEC=x",
		"READY=1", "STATUS=a\nREADY=1\n", "EXTEND_TIMEOUT_USEC=18446744073709551615", "WATCHDOG=trigger\nWATCHDOG_USEC=1",
		"FDSTORE=1\nFDNAME=upgraderd.state", "MAINPID=1\nSTOPPING=1\nERRNO=2", "=\n==\n\x00", "FDSTOREREMOVE=1\nFDNAME=:",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNotification(data)
		if err != nil {
			return
		}
		if n.extend < 0 || n.extend > 24*time.Hour || n.watchdogEvery < 0 || n.watchdogEvery > 24*time.Hour {
			t.Errorf("times out of bounds: %+v", n)
		}
		if n.reloading < 0 || n.errno != nil && (*n.errno < 0 || *n.errno > 4095) {
			t.Errorf("out of bounds: %+v", n)
		}
		if n.status != nil && strings.Contains(*n.status, "\n") {
			t.Errorf("a status of two lines: %q", *n.status)
		}
		if n.store && n.fdName != "" && validName(n.fdName) == nil && strings.HasPrefix(n.fdName, internal) {
			t.Errorf("a worker may name a descriptor %q", n.fdName)
		}
	})
}

func TestParseErrno(t *testing.T) {
	for in, want := range map[string]int{"0": 0, "22": 22, "ENOENT": 2, "EINVAL": 22} {
		if got, ok := parseErrno(in); !ok || got != want {
			t.Errorf("%q: got %d, %t, want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "-22", "enoent", "NONE", "99999999999"} {
		if got, ok := parseErrno(in); ok {
			t.Errorf("%q: got %d, want to pass over it", in, got)
		}
	}
}

func TestWaitedDescriptors(t *testing.T) {
	if got := pollFDs([]byte{3, 0, 0, 0, unix.POLLIN, 0, 0, 0, 4, 0, 0, 0, unix.POLLOUT, 0, 0, 0, 9}); !slices.Equal(got, []int{3}) {
		t.Errorf("pollFDs: got %v, want [3]", got)
	}
	set := make([]byte, 16)
	set[0], set[8] = 1<<5, 1<<1
	if got := selectFDs(set); !slices.Equal(got, []int{5, 65}) {
		t.Errorf("selectFDs: got %v, want [5 65]", got)
	}
	nr, args, ok := parseSyscall("288 0x3 0x7f 0x0 0x80000 0x0 0x0 0x7ffd 0x7f51\n")
	if !ok || nr != 288 || args[0] != 3 {
		t.Errorf("parseSyscall: got %d %v %t", nr, args, ok)
	}
	for _, line := range []string{"running\n", "-1 0x7ffd 0x7f51\n", ""} {
		if _, _, ok := parseSyscall(line); ok {
			t.Errorf("parseSyscall(%q) says it is in a system call", line)
		}
	}
	if ino, ok := epollInode("tfd:        5 events:       19 data: 7f0000000005  pos:0 ino:61af sdev:8\n"); !ok || ino != 0x61af {
		t.Errorf("epollInode: got %x %t", ino, ok)
	}
}

func TestServiceGroup(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/app.service\n":                             "/system.slice/app.service",
		"9:name=systemd:/system.slice/a@b.service\n0::/\n":           "/system.slice/a@b.service",
		"0::/user.slice/user-0.slice/session-1.scope\n":              "",
		"12:cpu:/system.slice/other.service\n0::/system.slice/foo\n": "",
	} {
		if got, ok := serviceGroup(text); got != want || ok != (want != "") {
			t.Errorf("serviceGroup(%q) = %q %t, want %q", text, got, ok, want)
		}
	}
}

func TestProgramPages(t *testing.T) {
	const exe = "/usr/bin/upgraderd"
	if start, n, ok := programPages("00400000-00500000 r-xp 00000000 fe:00 12 /usr/bin/upgraderd\n", exe); !ok || start != 0x400000 || n != 0x100000 {
		t.Errorf("text: got %x %x %t", start, n, ok)
	}
	for _, line := range []string{
		"00600000-00700000 rw-p 00200000 fe:00 12 /usr/bin/upgraderd\n",
		"7f0000000000-7f0000001000 r-xp 00000000 fe:00 13 /lib/libc.so.6\n",
		"7f0000000000-7f0000001000 rw-p 00000000 00:00 0\n", "",
	} {
		if _, _, ok := programPages(line, exe); ok {
			t.Errorf("%q would be dropped", line)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	good := Options{Program: "/bin/true", RuntimeDir: "/run/x"}
	if _, err := good.complete(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no program":          func(o *Options) { o.Program = "" },
		"relative":            func(o *Options) { o.Program = "bin/true" },
		"out of the release":  func(o *Options) { o.Root, o.Program = "/srv", "../../bin/true" },
		"relative root":       func(o *Options) { o.Root, o.Program = "srv", "bin/true" },
		"no release":          func(o *Options) { o.Args = []string{"-p", "{release}/etc"} },
		"negative":            func(o *Options) { o.DrainTimeout = -1 },
		"no runtime dir":      func(o *Options) { o.RuntimeDir = "" },
		"two of the one name": func(o *Options) { o.Listen = []Listen{{Name: "a"}, {Name: "a"}} },
	} {
		o := good
		change(&o)
		if _, err := o.complete(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
