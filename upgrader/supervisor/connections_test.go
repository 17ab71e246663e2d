package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/upgraderd/upgraderd/upgrader/statusline"
)

func TestCount(t *testing.T) {
	const all = 1 << 30 // of this host, whoever's they are
	for _, tt := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp", "[::]:0"}, // IPv4 comes to it, too
		{"unix", filepath.Join(t.TempDir(), "listener")},
	} {
		l, err := net.Listen(tt.network, tt.address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// Another listener's are not counted, nor what we opened ourselves.
		other, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		dial := func(l net.Listener) {
			t.Helper()
			c, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
		}
		dial(other)
		at := []socketID{identify(t, l)}
		for want := range 3 {
			if got := count(os.Getpid(), at, all); got != want {
				t.Errorf("%s: got %d connections, want %d", l.Addr(), got, want)
			}
			dial(l)
		}
	}
	full, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if got := count(os.Getpid(), []socketID{identify(t, full)}, 0); got != statusline.Unknown {
		t.Errorf("with more sockets than are counted: got %d", got)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, at := range [][]socketID{nil, {identify(t, udp)}} {
		if got := count(os.Getpid(), at, all); got != statusline.Unknown {
			t.Errorf("%v: got %d", at, got)
		}
	}
}

// identify is what a supervisor that holds the listener knows of it.
func identify(t *testing.T, l any) socketID {
	t.Helper()
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	var set socketSet
	if err := set.add("x", f); err != nil {
		t.Fatal(err)
	}
	defer set.remove("x")
	return set.listening()[0]
}
