package activation_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// A whole service. Run by hand it listens on port 8080; started by systemd or
// by "upgraderd supervise" it takes the socket named http, and its successor
// can take over while this process answers what it has accepted.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello\n") })

	err := activation.Serve(ctx, activation.Server{
		Name: "http",
		HTTP: &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second},
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleServe() {
	ctx, stop := context.WithCancel(context.Background())

	// Two servers with limits of their own. They are ready together, and end
	// together.
	api := activation.Server{
		Name:       "api",
		HTTP:       &http.Server{Addr: "127.0.0.1:0"},
		Grace:      10 * time.Second, // clients keep connections for long
		DrainLimit: time.Minute,
	}
	admin := activation.Server{
		Name:    "admin",
		Network: "unix",
		HTTP:    &http.Server{Addr: "@example-admin"},
		Grace:   -1, // nothing that could not be asked again
	}
	// Long answers end when the service is asked to: the drain waits for them.
	api.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-ctx.Done():
		case <-r.Context().Done():
		}
	})

	time.AfterFunc(10*time.Millisecond, stop) // SIGTERM, in a real service
	err := activation.Serve(ctx, api, admin)

	var cut *activation.CutError
	if errors.As(err, &cut) {
		fmt.Println("had to cut", cut.Connections)
	}
	fmt.Println(err)
	// Output: <nil>
}

func ExampleListenAndServe() {
	// The whole of main: sockets in, readiness out, drained at the end.
	log.Print(activation.ListenAndServe(":8080", nil))
}

func ExampleListenAndServeTLS() {
	log.Print(activation.ListenAndServeTLS(":8443", "cert.pem", "key.pem", nil))
}

func ExampleListen() {
	// The .socket unit says FileDescriptorName=web. By hand there is none.
	l, err := activation.Listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(l.Addr().Network())
	// Output: tcp
}

func ExampleListenPacket() {
	c, err := activation.ListenPacket("dns", "udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.LocalAddr().Network())
	// Output: udp
}

func ExampleListeners() {
	listeners, err := activation.Listeners()
	if err != nil {
		log.Fatal(err)
	}
	for name, all := range listeners {
		for _, l := range all {
			fmt.Println(name, "listens on", l.Addr())
			defer l.Close()
		}
	}
}

func ExamplePacketConns() {
	conns, err := activation.PacketConns()
	if err != nil {
		log.Fatal(err)
	}
	for name, all := range conns {
		for _, c := range all {
			fmt.Println(name, "receives on", c.LocalAddr())
			defer c.Close()
		}
	}
}

func ExampleFiles() {
	// Take what package net cannot represent, or what is to be passed on.
	files, err := activation.Files()
	if err != nil {
		log.Fatal(err)
	}
	activation.UnsetEnv()
	for i, f := range files {
		fmt.Println(i, f.Name())
		defer f.Close()
	}
}

func ExampleNames() {
	names, err := activation.Names()
	fmt.Println(len(names), err) // not activated: none, and no error
	// Output: 0 <nil>
}

func ExampleUnsetEnv() {
	defer setenv("LISTEN_FDNAMES", "web")()
	activation.UnsetEnv()
	_, there := os.LookupEnv("LISTEN_FDNAMES")
	fmt.Println(there)
	// Output: false
}

func ExampleChildEnv() {
	defer setenv("NOTIFY_SOCKET", "/run/ours")()
	cmd := exec.Command("sh", "-c", "echo ${NOTIFY_SOCKET-unset}")
	cmd.Env = activation.ChildEnv()
	out, err := cmd.Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(out))
	// Output: unset
}

func ExampleNotify() {
	withManager(func() error {
		return activation.Notify("READY=1", "STATUS=Serving 1.4.2")
	})
	// Without a manager nothing happens, and nothing is wrong.
	fmt.Println(activation.Notify("READY=1"))
	// Output:
	// READY=1 STATUS=Serving 1.4.2
	// <nil>
}

func ExampleSupervised() {
	if !activation.Supervised() {
		fmt.Println("run by hand")
	}
	// Output: run by hand
}

func ExampleReady() {
	withManager(func() error {
		// … open the sockets, warm the caches …
		return activation.Ready()
	})
	// Output: READY=1
}

func ExampleReloading() {
	withManager(func() error {
		if err := activation.Reloading(); err != nil {
			return err
		}
		// … read the configuration again; keep the old one if it is bad …
		return activation.Ready()
	})
	// Output:
	// RELOADING=1 MONOTONIC_USEC=…
	// READY=1
}

// A service that looks at all of its configuration before it uses any of it, so
// that a bad one changes nothing.
func ExampleOnReload() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var greeting atomic.Value
	load := func(context.Context) error {
		text, err := os.ReadFile("/var/lib/upgraderd/hello-conf/current/hello.conf")
		if err == nil && len(text) == 0 {
			err = errors.New("hello.conf is empty")
		}
		if err == nil {
			greeting.Store(string(text))
		}
		return err
	}
	if err := load(ctx); err != nil {
		log.Fatal(err)
	}
	activation.OnReload(ctx, load) // before READY=1, which Serve sends
	err := activation.Serve(ctx, activation.Server{HTTP: &http.Server{
		Addr: ":8080",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, greeting.Load())
		}),
	}})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleStopping() {
	withManager(func() error {
		return activation.Stopping() // … then finish what was begun
	})
	// Output: STOPPING=1
}

func ExampleStatus() {
	withManager(func() error {
		return activation.Status("Indexing, %d of %d", 3, 10)
	})
	// Output: STATUS=Indexing, 3 of 10
}

func ExampleExtendTimeout() {
	withManager(func() error {
		for range 2 { // steps of a migration, each shorter than what is asked for
			if err := activation.ExtendTimeout(30 * time.Second); err != nil {
				return err
			}
		}
		return nil
	})
	// Output:
	// EXTEND_TIMEOUT_USEC=30000000
	// EXTEND_TIMEOUT_USEC=30000000
}

func ExampleWatchdog() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	db := func() error { return nil } // asks the main loop for a sign of life
	// Returns at once here: WatchdogSec= is not set.
	fmt.Println(activation.Watchdog(ctx, db))
	// Output: <nil>
}

func ExampleWatchdogInterval() {
	defer setenv("WATCHDOG_USEC", "30000000")() // WatchdogSec=30s
	// For a main loop that sends WATCHDOG=1 by itself.
	interval, err := activation.WatchdogInterval()
	fmt.Println(interval/2, err)
	// Output: 15s <nil>
}

func ExampleBarrier() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := activation.Status("Imported 12 files"); err != nil {
		log.Print(err) // nobody to tell
	}
	// A short-lived process waits until its last word was read: afterwards the
	// manager could no longer tell whose it was.
	fmt.Println(activation.Barrier(ctx))
	// Output: <nil>
}

func ExampleStoreFile() {
	withManager(func() error {
		f, err := os.Open("/dev/null")
		if err != nil {
			return err
		}
		defer f.Close() // the manager has its own
		return activation.StoreFile("upload", f)
	})
	// Output: FDSTORE=1 FDNAME=upload FDPOLL=0 + 1 descriptor
}

func ExampleStoreListener() {
	withManager(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		// After a restart, or kill -9, Listen("web", …) finds it again, with
		// everything that has queued up in it.
		return activation.StoreListener("web", l)
	})
	// Output: FDSTORE=1 FDNAME=web FDPOLL=0 + 1 descriptor
}

func ExampleStorePacketConn() {
	withManager(func() error {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer c.Close()
		return activation.StorePacketConn("dns", c)
	})
	// Output: FDSTORE=1 FDNAME=dns FDPOLL=0 + 1 descriptor
}

func ExampleTakeStored() {
	files, err := activation.TakeStored("upload")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(files), "left by the process before")
	// Output: 0 left by the process before
}

func ExampleStored() {
	l, err := activation.Listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	// What the listeners left over came from the store.
	stored, err := activation.Stored()
	fmt.Println(stored, err)
	// Output: map[] <nil>
}

func ExampleRemoveStored() {
	withManager(func() error {
		return activation.RemoveStored("upload")
	})
	// Output: FDSTOREREMOVE=1 FDNAME=upload
}

func ExampleStoreState() {
	sessions := []byte(`{"alice":3}`)
	err := activation.StoreState("sessions", sessions)
	if errors.Is(err, activation.ErrNoManager) {
		fmt.Println("run by hand: nobody keeps it")
	}
	// Output: run by hand: nobody keeps it
}

func ExampleTakeState() {
	sessions, err := activation.TakeState("sessions")
	if errors.Is(err, activation.ErrNoState) {
		sessions = []byte("{}")
	}
	fmt.Println(string(sessions))
	// Output: {}
}

func ExampleRemoveState() {
	withManager(func() error {
		return activation.RemoveState("sessions")
	})
	// Output:
	// FDSTOREREMOVE=1 FDNAME=sessions
	// FDSTOREREMOVE=1 FDNAME=sessions.next
}

// withManager runs the function with a manager that prints what it is told.
func withManager(f func() error) {
	addr := &net.UnixAddr{Name: fmt.Sprintf("@activation-example-%d", os.Getpid()), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	defer setenv("NOTIFY_SOCKET", addr.Name)()
	if err := f(); err != nil {
		log.Fatal(err)
	}
	buf, oob := make([]byte, 4096), make([]byte, 256)
	for {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			log.Fatal(err)
		}
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		line := strings.ReplaceAll(string(buf[:n]), "\n", " ")
		if before, _, ok := strings.Cut(line, "USEC="); ok && strings.HasPrefix(line, "RELOADING") {
			line = before + "USEC=…"
		}
		if fds := rights(oob[:oobn]); len(fds) > 0 {
			line += fmt.Sprintf(" + %d descriptor", len(fds))
			for _, fd := range fds {
				_ = syscall.Close(fd)
			}
		}
		fmt.Println(line)
	}
}

func rights(oob []byte) (fds []int) {
	msgs, _ := syscall.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		got, _ := syscall.ParseUnixRights(&m)
		fds = append(fds, got...)
	}
	return fds
}

// setenv sets a variable, as a manager would have, and returns what unsets it.
func setenv(key, value string) (unset func()) {
	if err := os.Setenv(key, value); err != nil {
		log.Fatal(err)
	}
	return func() { _ = os.Unsetenv(key) }
}
