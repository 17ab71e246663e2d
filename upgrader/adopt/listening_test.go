package adopt

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What this very process listens on, asked of the kernel.
func TestListening(t *testing.T) {
	group := t.TempDir()
	check(t, os.Mkdir(filepath.Join(group, "sub"), 0o755))
	check(t, os.WriteFile(filepath.Join(group, "sub/cgroup.procs"), []byte(strconv.Itoa(os.Getpid())+"\n1999999999\n"), 0o644))
	dir, err := os.MkdirTemp("", "adopt")
	check(t, err)
	defer os.RemoveAll(dir)
	var want []Address
	for _, c := range []struct{ network, address, kind string }{
		{"tcp", "127.0.0.1:0", "Stream"}, {"tcp", "[::1]:0", "Stream"},
		{"unix", filepath.Join(dir, "s"), "Stream"}, {"unixpacket", filepath.Join(dir, "p"), "SequentialPacket"},
	} {
		l, err := net.Listen(c.network, c.address)
		check(t, err)
		defer l.Close()
		want = append(want, Address{c.kind, l.Addr().String()})
	}
	d, err := net.ListenPacket("unixgram", filepath.Join(dir, "d"))
	check(t, err)
	defer d.Close()
	want = append(want, Address{"Datagram", d.LocalAddr().String()})
	// A client is no server.
	c, err := net.Dial("tcp", want[0].Address)
	check(t, err)
	defer c.Close()
	// A name that holds a line of the kernel's table, of a file that is no socket.
	forged, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	check(t, err)
	defer syscall.Close(forged)
	var st syscall.Stat_t
	check(t, syscall.Fstat(forged, &st))
	name := fmt.Sprintf("%s/x\n0: 00000002 00000000 00010000 0001 01 %d /etc/passwd", dir, st.Ino)
	check(t, os.MkdirAll(filepath.Dir(name), 0o755))
	if len(name) < 108 {
		check(t, syscall.Bind(forged, &syscall.SockaddrUnix{Name: name}))
		check(t, syscall.Listen(forged, 1))
	} else {
		t.Logf("%q is too long for a socket", name)
	}
	got := listening("/proc", group, "/")
	for _, a := range want {
		if !slices.Contains(got, a) {
			t.Errorf("%v is missing in %v", a, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := listening("/proc", group, ""); got != nil {
		t.Errorf("without a control group got %v", got)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000000000000000000000000000:0050": "[::]:80",
		"0000000000000000FFFF00000100007F:0050": "[::ffff:127.0.0.1]:80",
		"B80D0120000000000000000001000000:0035": "[2001:db8::1]:53",
	} {
		if got, ok := parseAddress(text); !ok || got.String() != want {
			t.Errorf("%s is %v, %v; want %s", text, got, ok, want)
		}
	}
	for _, text := range []string{"", ":", "0100007F", "0100007F:0000", "01:0050", "zz:0050", "0100007F:FFFFF"} {
		if got, ok := parseAddress(text); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestListenLines(t *testing.T) {
	got := listenLines([]Address{{"Stream", "0.0.0.0:80"}, {"Stream", "[::]:80"}, {"Stream", "/run/100%"}, {"Datagram", "[::]:53"}})
	want := []string{"ListenStream=0.0.0.0:80", "ListenStream=[::]:80", "ListenStream=/run/100%%", "ListenDatagram=[::]:53", "BindIPv6Only=ipv6-only"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := listenLines([]Address{{"Stream", "[::]:80"}}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// The names are found wherever they stand, also where two reads meet.
func TestTakesSockets(t *testing.T) {
	const size = 1 << 20
	for _, at := range []int{0, 1, size - 10, size - 1, size, 2*size - 20, 3 * size} {
		text := bytes.Repeat([]byte{'x'}, 3*size+100)
		copy(text[at:], "LISTEN_FDS")
		if got, err := takesSockets(bytes.NewReader(text)); got == "" || err != nil {
			t.Errorf("at %d: %q, %v", at, got, err)
		}
	}
	for _, text := range []string{"", "LISTEN", strings.Repeat("LISTEN_FD", 1<<18)} {
		if got, err := takesSockets(strings.NewReader(text)); got != "" || err != nil {
			t.Errorf("in %d bytes: %q, %v", len(text), got, err)
		}
	}
}
