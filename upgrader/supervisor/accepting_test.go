package supervisor

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playWaiter blocks on the listener at descriptor 3 in one way, as programs
// in other languages do.
func playWaiter(mode string) {
	runtime.LockOSThread()
	const fd = 3
	_ = unix.SetNonblock(fd, false)
	if child, ok := strings.CutPrefix(mode, "child "); ok { // as nginx's master does
		cmd := exec.Command(os.Args[0], "play-waiter", child)
		cmd.ExtraFiles = []*os.File{os.NewFile(fd, "socket")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		_ = cmd.Run()
		os.Exit(0)
	}
	switch mode {
	case "accept":
		unix.Accept(fd)
	case "accept4":
		unix.Accept4(fd, unix.SOCK_CLOEXEC)
	case "poll":
		unix.Poll([]unix.PollFd{{Fd: 0, Events: unix.POLLHUP}, {Fd: fd, Events: unix.POLLIN}}, -1)
	case "ppoll":
		unix.Ppoll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, nil, nil)
	case "select":
		var set unix.FdSet
		set.Set(fd)
		unix.Select(fd+1, &set, nil, nil, nil)
	case "epoll":
		ep, _ := unix.EpollCreate1(0)
		unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
		unix.EpollWait(ep, make([]unix.EpollEvent, 1), -1)
	default: // it has the socket, and does something else
		time.Sleep(time.Hour)
	}
	os.Exit(0)
}

func TestSeenWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	id := func(l net.Listener, name string) socketID {
		var st unix.Stat_t
		if err := control(l.(*net.TCPListener), func(fd int) { unix.Fstat(fd, &st) }); err != nil {
			t.Fatal(err)
		}
		return socketID{name: name, ino: st.Ino}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"accept", "accept4", "poll", "ppoll", "select", "epoll", "child accept", "child epoll", "nothing"} {
		t.Run(mode, func(t *testing.T) {
			f, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "play-waiter", mode)
			cmd.ExtraFiles = []*os.File{f}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			f.Close()
			defer cmd.Wait()
			defer cmd.Process.Kill()
			waits := func() bool { return waitsOnAll(cmd.Process.Pid, []socketID{id(l, "web")}) == nil }
			if mode == "nothing" {
				time.Sleep(100 * time.Millisecond)
				if waits() {
					t.Error("seen waiting, but it only holds the socket")
				}
				return
			}
			for deadline := time.Now().Add(10 * time.Second); !waits(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("not seen waiting")
				}
			}
			if err := waitsOnAll(cmd.Process.Pid, []socketID{id(l, "web"), id(other, "admin")}); err == nil {
				t.Error("ready although it does not have the other socket")
			}
		})
	}
}
