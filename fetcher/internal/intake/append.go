package intake

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Measured with BenchmarkFetch100MiB on two processors, ext4 on NVMe: blocks of
// 128 KiB to 1 MiB do equally well, 64 KiB is slower by half; reading, hashing
// and writing at the same time brings 0.58 of the time of one loop, and telling
// the disk early to start another quarter: 0.43. More than 2 MiB of buffers buys
// nothing.
const (
	blockSize = 256 << 10
	blocks    = 8
	// writeBack is how many bytes are written before the disk is told to
	// start, so that little is left to do when fsync is called.
	writeBack = 4 << 20
	// blockPatience is how long a slow source may fill one block, so that a
	// crash loses seconds of a slow transfer, not minutes.
	blockPatience = time.Second
	// progressEvery is as often as a person can follow.
	progressEvery = 100 * time.Millisecond
)

// block is a buffer that is hashed and written at the same time. Whoever is
// second gives it back.
type block struct {
	data  []byte
	users atomic.Int32
}

// Append adds body to the part until io.EOF, and fails beyond max bytes in all.
// Errors of body are passed on as they are. After one of those the part is good
// to be taken up again; after one of the disk it is not. progress, unless nil, is called on the caller's goroutine with the size so far, at most
// ten times a second and once at the end.
func (p *Part) Append(body io.Reader, max int64, progress func(size int64)) error {
	if p.size > max {
		return tooLarge(max)
	}
	var (
		free    = make(chan *block, blocks)
		toHash  = make(chan *block, blocks)
		toWrite = make(chan *block, blocks)
		work    sync.WaitGroup
		failed  atomic.Pointer[fault.Error]
	)
	for range blocks {
		free <- &block{data: make([]byte, blockSize)}
	}
	release := func(b *block) {
		if b.users.Add(-1) == 0 {
			free <- b
		}
	}
	work.Go(func() {
		for b := range toHash {
			p.hash.Write(b.data)
			release(b)
		}
	})
	w := writer{file: p.file, at: p.size, started: p.size}
	work.Go(func() {
		for b := range toWrite {
			if failed.Load() == nil {
				if err := w.write(b.data); err != nil {
					failed.Store(fault.Local(err))
				}
			}
			release(b)
		}
	})
	err := p.read(body, max, progress, free, func(b *block) bool {
		b.users.Store(2)
		toHash <- b
		toWrite <- b
		return failed.Load() == nil
	})
	close(toHash)
	close(toWrite)
	work.Wait()
	if f := failed.Load(); f != nil {
		return f
	}
	return err
}

// read fills blocks and hands them on until body ends or pass gives false.
func (p *Part) read(body io.Reader, max int64, progress func(int64), free <-chan *block, pass func(*block) bool) error {
	shown := time.Now()
	for {
		b := <-free
		room := min(blockSize, max+1-p.size) // the byte beyond max tells that there is one
		n, err := fill(body, b.data[:room])
		end := err == io.EOF //nolint:errorlint // bare: a fault that wraps it is no end
		b.data = b.data[:n]
		p.size += int64(n)
		if p.size > max {
			return tooLarge(max)
		}
		if n > 0 && !pass(b) {
			return nil // the writer says why
		}
		if progress != nil && (end || time.Since(shown) >= progressEvery) {
			progress(p.size)
			shown = time.Now()
		}
		if end {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func tooLarge(max int64) error {
	return fault.New(fault.TooLarge, fmt.Errorf("more than %d bytes", max), "raise SizeMax= if the artifact is meant to be that large")
}

// fill reads until buf is full, the source ends or its time is over.
func fill(body io.Reader, buf []byte) (n int, err error) {
	begin := time.Now()
	for n < len(buf) && err == nil && time.Since(begin) < blockPatience {
		var m int
		m, err = body.Read(buf[n:])
		n += m
	}
	return n, err
}

// writer writes front to back, and keeps the disk busy.
type writer struct {
	file    *os.File
	at      int64
	started int64 // up to here the disk was told to write
}

func (w *writer) write(data []byte) error {
	if _, err := w.file.WriteAt(data, w.at); err != nil {
		return err
	}
	w.at += int64(len(data))
	if w.at-w.started >= writeBack {
		// Advice: where it is not supported, fsync does it all.
		_ = unix.SyncFileRange(int(w.file.Fd()), w.started, w.at-w.started, unix.SYNC_FILE_RANGE_WRITE)
		w.started = w.at
	}
	return nil
}
