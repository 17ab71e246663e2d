package activation_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/activation"
)

// fdStore keeps descriptors as systemd does: in order, by name, without a
// second descriptor of the same open file.
type fdStore struct {
	max  int
	kept []passed
}

func (s *fdStore) obey(d datagram) {
	switch {
	case d.has("FDSTOREREMOVE=1"):
		var kept []passed
		for _, p := range s.kept {
			if p.name == d.value("FDNAME") {
				p.file.Close()
				continue
			}
			kept = append(kept, p)
		}
		s.kept = kept
	case d.has("FDSTORE=1"):
		for _, f := range d.files {
			if len(s.kept) >= s.max {
				f.Close()
				continue
			}
			s.kept = append(s.kept, passed{d.value("FDNAME"), f})
		}
		return
	}
	d.close()
}

func (s *fdStore) close() {
	for _, p := range s.kept {
		p.file.Close()
	}
}

// drainInto obeys every datagram that is there.
func (m *manager) drainInto(s *fdStore) error {
	for {
		d, err := m.next(10 * time.Millisecond)
		if errors.Is(err, errNothing) {
			return nil
		}
		if err != nil {
			return err
		}
		s.obey(d)
	}
}

func TestStoreMessages(t *testing.T) {
	noLeaks(t)
	m := newManager(t, false)
	m.use(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := listenTCP(t)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, tt := range []struct {
		store func() error
		want  string
		same  func(unix.Stat_t) bool
	}{
		{func() error { return activation.StoreFile("null", f) }, "FDSTORE=1\nFDNAME=null\nFDPOLL=0", isChar},
		{func() error { return activation.StoreFile("conn", f, activation.DropOnHangup) }, "FDSTORE=1\nFDNAME=conn", isChar},
		{func() error { return activation.StoreListener("http", l) }, "FDSTORE=1\nFDNAME=http\nFDPOLL=0", isSocket},
		{func() error { return activation.StorePacketConn("dns", udp) }, "FDSTORE=1\nFDNAME=dns\nFDPOLL=0", isSocket},
	} {
		if err := tt.store(); err != nil {
			t.Fatal(err)
		}
		d := m.want(t, tt.want)
		if len(d.files) != 1 {
			t.Fatalf("%q: got %d descriptors, want 1", tt.want, len(d.files))
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(d.files[0].Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if !tt.same(st) {
			t.Errorf("%q: got another kind of file, mode %o", tt.want, st.Mode)
		}
		d.close()
	}
	// What was stored stays in use here, without blocking its thread.
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-accepted; err != nil {
		t.Errorf("accept on the stored listener: %v", err)
	}

	for _, name := range []string{"", "a:b", "a\nb", strings.Repeat("x", 256)} {
		for what, err := range map[string]error{
			"StoreFile":     activation.StoreFile(name, f),
			"StoreListener": activation.StoreListener(name, l),
			"RemoveStored":  activation.RemoveStored(name),
			"StoreState":    activation.StoreState(name, nil),
		} {
			if err == nil {
				t.Errorf("%s(%.10q): got nil, want an error", what, name)
			}
		}
	}
	if err := activation.StoreFile("gone", nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("StoreFile of nil: got %v", err)
	}
	if _, err := m.next(10 * time.Millisecond); !errors.Is(err, errNothing) {
		t.Error("a refused name was sent")
	}
}

func isChar(st unix.Stat_t) bool   { return st.Mode&unix.S_IFMT == unix.S_IFCHR }
func isSocket(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFSOCK }

func TestStoreListenerKeepsThePath(t *testing.T) {
	m := newManager(t, false)
	m.use(t)
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := activation.StoreListener("sock", l); err != nil {
		t.Fatal(err)
	}
	d := m.want(t, "FDSTORE=1\nFDNAME=sock\nFDPOLL=0")
	defer d.close()
	l.Close()
	c, err := net.Dial("unix", path) // waits in the stored socket's queue
	if err != nil {
		t.Fatalf("the stored socket is out of reach: %v", err)
	}
	c.Close()
}

// A listener, a file and state are stored by one process and found by the next.
func TestStoreOutlivesTheProcess(t *testing.T) {
	noLeaks(t)
	m := newManager(t, true)
	store := &fdStore{max: 16}
	defer store.close()
	var addr string
	for generation := range 3 {
		c := start(t, "stored", store.kept, "NOTIFY_SOCKET="+m.addr, fmt.Sprintf("GENERATION=%d", generation))
		got := c.line(t)
		if addr == "" {
			addr = got
		}
		if got != addr {
			t.Errorf("generation %d serves %q, want %q", generation, got, addr)
		}
		if err := m.drainInto(store); err != nil {
			t.Fatal(err)
		}
		c.finish(t)
	}
	if len(store.kept) != 3 {
		t.Errorf("got %d descriptors in the store, want 3", len(store.kept))
	}
}

func childStored() error {
	generation := os.Getenv("GENERATION")
	state, err := activation.TakeState("session")
	switch {
	case generation == "0" && !errors.Is(err, activation.ErrNoState):
		return wrong("TakeState at first: got %q, %v, want ErrNoState", state, err)
	case generation != "0" && err != nil:
		return err
	case generation != "0" && string(state)+"x" != strings.Repeat("x", len(state)+1):
		return fmt.Errorf("TakeState: got %q", state)
	case fmt.Sprint(len(state)) != generation:
		return fmt.Errorf("TakeState: got %q in generation %s", state, generation)
	}
	if err := activation.StoreState("session", append(state, 'x')); err != nil {
		return err
	}

	l, err := activation.Listen("http", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stored, err := activation.Stored()
	if err != nil {
		return err
	}
	if generation == "0" {
		if len(stored) != 0 {
			return fmt.Errorf("Stored: got %v at first", stored)
		}
		if err := activation.StoreListener("http", l); err != nil {
			return err
		}
		f, err := os.CreateTemp("", "activation")
		if err != nil {
			return err
		}
		os.Remove(f.Name())
		fmt.Fprint(f, "kept")
		if err := activation.StoreFile("file", f); err != nil {
			return err
		}
		f.Close()
	} else {
		if len(stored) != 1 || len(stored["file"]) != 1 {
			return fmt.Errorf("Stored: got %v, want one file", stored)
		}
		got, err := io.ReadAll(io.NewSectionReader(stored["file"][0], 0, 100))
		if err != nil || string(got) != "kept" {
			return wrong("stored file: got %q, %v", got, err)
		}
	}
	fmt.Println(l.Addr())
	untilEOF()
	return nil
}

// Processes that are killed at any moment while they store: the next always
// finds the last state that is known to have been stored, or a newer one.
func TestStateSurvivesKill(t *testing.T) {
	noLeaks(t)
	m := newManager(t, true)
	store := &fdStore{max: 2}
	defer store.close()
	newest := uint64(0)
	for range 20 {
		c := start(t, "state", store.kept, "NOTIFY_SOCKET="+m.addr)
		first := c.line(t)
		if !strings.HasPrefix(first, "took ") {
			c.finish(t)
			t.Fatalf("child said %q: %s", first, c.err)
		}
		var took uint64
		if _, err := fmt.Sscanf(first, "took %d", &took); err != nil || took != newest {
			t.Fatalf("child took state %d, want %d, the newest in the store", took, newest)
		}
		killAt := time.Now().Add(time.Duration(rand.IntN(5000)) * time.Microsecond)
		for time.Now().Before(killAt) {
			if d, err := m.next(time.Millisecond); err == nil {
				store.obey(d)
			}
		}
		c.Process.Kill()
		c.Wait()
		// The manager reads what a dead process sent, in order.
		if err := m.drainInto(store); err != nil {
			t.Fatal(err)
		}
		newest = 0
		for _, p := range store.kept {
			buf := make([]byte, 24)
			if n, err := p.file.ReadAt(buf, 0); n == len(buf) && err == nil {
				newest = max(newest, binary.BigEndian.Uint64(buf[16:]))
			}
		}
		if newest < took {
			t.Fatalf("store holds state %d after %d was there", newest, took)
		}
	}
	if newest == 0 {
		t.Error("nothing was ever stored")
	}
}

func childState() error {
	n := uint64(0)
	state, err := activation.TakeState("n")
	if err == nil {
		n = binary.BigEndian.Uint64(state)
	} else if !errors.Is(err, activation.ErrNoState) {
		return err
	}
	names, _ := activation.Names()
	if len(names) > 0 && err != nil {
		return fmt.Errorf("the store had %q, but: %w", names, err)
	}
	fmt.Println("took", n)
	for {
		n++
		if err := activation.StoreState("n", binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
	}
}
