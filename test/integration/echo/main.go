// Command echo is a service of the tests: on every socket it was passed, stream
// or datagram, it answers each message with the socket's name and its own
// version. As "echo ask NETWORK ADDRESS COUNT FLAG" it is the
// client, which makes the file FLAG after its first answer.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

var version = "dev"

func main() {
	log.SetFlags(0)
	var err error
	if len(os.Args) == 6 && os.Args[1] == "ask" {
		err = ask(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	} else {
		err = serve()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers until SIGTERM, then what was taken from a queue by then.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listeners, err := activation.Listeners()
	if err != nil {
		return err
	}
	packets, err := activation.PacketConns()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for name, list := range listeners {
		for _, l := range list {
			all.Go(func() { answerStream(ctx, name, l) })
		}
	}
	for name, list := range packets {
		for _, c := range list {
			all.Go(func() { answerPackets(ctx, name, c) })
		}
	}
	if err := activation.Ready(); err != nil {
		return err
	}
	all.Wait()
	return nil
}

func answerStream(ctx context.Context, name string, l net.Listener) {
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintf(conn, "%s %s", name, version)
		conn.Close()
	}
}

func answerPackets(ctx context.Context, name string, c net.PacketConn) {
	defer c.Close()
	context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	buf := make([]byte, 1024)
	for {
		_, from, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			log.Printf("read from %s: %v", name, err)
			return
		}
		if _, err := c.WriteTo([]byte(name+" "+version), from); err != nil {
			log.Printf("answer on %s: %v", name, err)
		}
	}
}

// ask asks count times, one after the other, and prints how often it got each
// answer.
func ask(network, address, count, flag string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	answers := make(map[string]int)
	for i := range n {
		answer, err := askOnce(network, address)
		if err != nil {
			answer = "lost: " + err.Error()
		}
		answers[answer]++
		if i == 0 {
			if err := os.WriteFile(flag, nil, 0o600); err != nil {
				return err
			}
		}
		time.Sleep(time.Millisecond)
	}
	for _, answer := range slices.Sorted(maps.Keys(answers)) {
		fmt.Printf("%d %s\n", answers[answer], answer)
	}
	return nil
}

func askOnce(network, address string) (string, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if network == "unixgram" { // a name to answer to, in the abstract
		dialer.LocalAddr = &net.UnixAddr{Net: network, Name: fmt.Sprintf("@ask-%d", os.Getpid())}
	}
	conn, err := dialer.Dial(network, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if !strings.HasPrefix(network, "tcp") && network != "unix" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 1024)
	got, err := conn.Read(buf)
	return string(buf[:got]), err
}
