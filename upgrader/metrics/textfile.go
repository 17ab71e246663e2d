package metrics

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// textfileEvery is how old the file gets without news: who watches its age
	// knows whether anybody writes it.
	textfileEvery = 30 * time.Second
	// textfileRest is between two writes, while there is news all the time.
	textfileRest = time.Second
)

// WriteFile has the text format appear whole under a name, for the textfile
// collector of node_exporter: it may be read at any time.
func WriteFile(name string, h Host) error {
	var b bytes.Buffer
	if err := Write(&b, h); err != nil {
		return err
	}
	// The collector takes what ends in .prom; one name, so that nothing is left of
	// who was killed.
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // the daemon's umask is not for this
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// Keep writes the file name now, after each news, and now and then, until ctx ends.
// The file stays, and its age tells. told gets the error of each time, or nil.
func Keep(ctx context.Context, name string, news <-chan struct{}, read func() Host, told func(error)) {
	for {
		told(WriteFile(name, read()))
		if !pause(ctx, textfileRest, nil) || !pause(ctx, textfileEvery-textfileRest, news) {
			return
		}
	}
}

// pause ends after d, or with news; it reports false when ctx ended it.
func pause(ctx context.Context, d time.Duration, news <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-news:
	}
	return true
}
