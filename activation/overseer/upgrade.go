package overseer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/upgraderd/upgraderd/activation"
)

// fetchLoop polls the fetcher until ctx ends.
func (p *parent) fetchLoop(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		p.fetch(ctx)
		select {
		case <-time.After(p.MinFetchInterval - time.Since(began)):
		case <-ctx.Done():
		}
	}
}

// fetch makes one attempt of an upgrade.
func (p *parent) fetch(ctx context.Context) {
	var r io.Reader
	err := guard("Fetch", func() (err error) { r, err = p.Fetcher.Fetch(); return err })
	if err != nil {
		p.warnf("fetch: %s", err)
		return
	}
	if r == nil {
		return
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if err := p.upgrade(ctx, r); err != nil && ctx.Err() == nil {
		p.warnf("upgrade: %s; the old program serves", err)
	}
}

// guard makes an error of a panic in a function of the program's: it must not end
// the main process, which holds the sockets.
func guard(name string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s panicked: %v", name, v)
		}
	}()
	return f()
}

// upgrade goes from bytes to a new worker, and to a new binary once that serves.
func (p *parent) upgrade(ctx context.Context, r io.Reader) error {
	next, err := p.binary.receive(r, p.SizeMax)
	if err != nil {
		return err
	}
	if next.path == "" {
		p.debugf("what was fetched is no news")
		return nil
	}
	defer os.Remove(next.path) // where it was not moved
	if p.PreUpgrade != nil {
		if err := guard("PreUpgrade", func() error { return p.PreUpgrade(next.path) }); err != nil {
			return fmt.Errorf("cancelled by PreUpgrade: %w", err)
		}
	}
	if err := checkBinary(ctx, next.path); err != nil {
		if ctx.Err() == nil {
			p.binary.condemn(next.id)
		}
		return err
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.NoRestart || p.NoRestartAfterFetch {
		if err := p.binary.put(next, !p.NoRestart); err != nil {
			return fmt.Errorf("replace the binary: %w", err)
		}
		p.choose(p.binary.settled())
		p.debugf("%s is in place for the next start", next.id)
		return nil
	}
	p.choose(next)
	err = p.handOver(ctx)
	if err == nil {
		err = p.binary.put(next, false)
		if err != nil { // it serves; a restart would run the old one
			err = fmt.Errorf("%s serves, but does not take the place of %s: %w", next.id, p.binary.path, err)
		}
	} else {
		var failed *failedError
		if errors.As(err, &failed) {
			p.binary.condemn(next.id)
		}
	}
	p.choose(p.binary.settled())
	if err == nil {
		p.debugf("upgraded, %s serves", next.id)
	}
	return err
}

// passedNames are the names of the sockets that a service manager passed to this
// process.
func passedNames() ([]string, error) { return activation.Names() }
