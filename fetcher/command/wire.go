package command

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// A question over a socket is three lines: target, verb, file. The answer is
// blocks, each a length of four bytes, the highest first, and as many bytes; an
// empty block, and a byte, which is the exit status, end it. Where the other end goes
// away the program is ended.
const (
	blockMax     = 64 << 10
	questionMax  = 3 * (fieldMax + 1)
	questionTime = 10 * time.Second
)

// Dial runs programs by way of the stream socket at path, at whose other end is
// Serve.
func Dial(path string) Run {
	return func(ctx context.Context, r Request) (io.ReadCloser, error) {
		if err := r.check(); err != nil {
			return nil, err
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		a := &answer{conn: conn, in: bufio.NewReaderSize(conn, blockMax)}
		a.stop = context.AfterFunc(ctx, func() { conn.Close() })
		if _, err := fmt.Fprintf(conn, "%s\n%s\n%s\n", r.Target, r.Verb, r.File); err != nil {
			a.Close()
			return nil, err
		}
		return a, nil
	}
}

// answer takes blocks off a socket.
type answer struct {
	conn net.Conn
	in   *bufio.Reader
	stop func() bool
	left int
	err  error
}

func (a *answer) Read(p []byte) (int, error) {
	if a.err == nil && a.left == 0 {
		a.left, a.err = a.next()
	}
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.in.Read(p[:min(len(p), a.left)])
	a.left -= n
	if err != nil {
		a.err = whole(err)
	}
	return n, a.err
}

// next gives the length of the next block.
func (a *answer) next() (int, error) {
	var head [4]byte
	if _, err := io.ReadFull(a.in, head[:]); err != nil {
		return 0, whole(err)
	}
	switch n := binary.BigEndian.Uint32(head[:]); {
	case n > blockMax:
		return 0, errors.New("the answer is none")
	case n > 0:
		return int(n), nil
	}
	status, err := a.in.ReadByte()
	if err != nil {
		return 0, whole(err)
	}
	if status != 0 {
		return 0, &ExitError{int(status)}
	}
	return 0, io.EOF
}

// whole keeps the end of a connection from looking like that of an answer.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close ends the program at the other end.
func (a *answer) Close() error {
	a.stop()
	return a.conn.Close()
}

// Serve answers the one question that comes over conn, with what run gives for
// it; if that is an error, the status is Config. It returns what went wrong, for
// people. The caller closes conn.
func Serve(ctx context.Context, conn net.Conn, run Run) error {
	if err := conn.SetReadDeadline(time.Now().Add(questionTime)); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, questionMax))
	var lines [3]string
	for i := range lines {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read the question: %w", whole(err))
		}
		lines[i] = strings.TrimSuffix(line, "\n")
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	r := Request{lines[0], lines[1], lines[2]}
	if err := r.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel()
		_, _ = conn.Read(make([]byte, 1)) // returns when the other end is closed, or ours
	}()
	defer func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		<-gone
	}()
	out, err := run(ctx, r)
	if err != nil {
		return errors.Join(err, end(conn, Config))
	}
	defer out.Close()
	block := make([]byte, 4+blockMax)
	for {
		n, err := out.Read(block[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(block, uint32(n))
			if _, err := conn.Write(block[:4+n]); err != nil {
				return fmt.Errorf("the other end went away: %w", err)
			}
		}
		var exit *ExitError
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return end(conn, 0)
		case errors.As(err, &exit):
			return errors.Join(err, end(conn, byte(exit.Status)))
		case ctx.Err() != nil:
			return errors.New("the other end went away before the command ended")
		default:
			return err
		}
	}
}

func end(conn net.Conn, status byte) error {
	_, err := conn.Write([]byte{0, 0, 0, 0, status})
	return err
}
