package fetcher

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/versity"
)

// depot keeps a bucket as a directory is, and makes options that follow it.
type depot struct {
	*versity.Gateway
	t    *testing.T
	keys string
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{versity.Start(t), t, filepath.Join(t.TempDir(), "credentials")}
	d.Bucket("releases")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", versity.ID, versity.Secret)
	if err := os.WriteFile(d.keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// mirror puts all that is in dir below app/.
func (d *depot) mirror(dir string) {
	d.t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		d.Put("releases", "app/"+rel, raw)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *depot) follow(o Options) Options {
	o.Path, o.Endpoint, o.Region, o.CredentialFile = "s3://releases/app", d.URL, versity.Region, d.keys
	return o
}

// TestBucket follows a bucket by each way to trust it.
func TestBucket(t *testing.T) {
	d := newDepot(t)
	one := noise(t, 3<<20)

	t.Run("signed", func(t *testing.T) {
		leaks(t)
		s := newShop(t)
		s.release("app_1.bin", one)
		d.mirror(s.dir)
		f := mustNew(t, d.follow(s.options()))
		listing := mustCheck(t, f)
		if again := mustCheck(t, f); !again.Unchanged || len(again.Candidates) != 1 {
			t.Errorf("second listing %+v", again)
		}
		into := t.TempDir()
		v := mustFetch(t, f, listing.Candidates[0], into)
		if !bytes.Equal(content(t, v), one) || !slices.Equal(names(t, into), []string{"app_1.bin"}) {
			t.Errorf("fetched something else, beside %q", names(t, into))
		}

		// An object that changes between check and fetch.
		s.release("app_2.bin", []byte("two"))
		d.mirror(s.dir)
		c := newest(t, f)
		d.Put("releases", "app/app_2.bin", []byte("2.0"))
		_, err := f.Fetch(context.Background(), c, into, nil)
		wantCode(t, err, fault.ArtifactDigest)
		d.Delete("releases", "app/app_2.bin")
		_, err = f.Fetch(context.Background(), c, into, nil)
		wantCode(t, err, fault.NotFound)
		d.Put("releases", "app/app_2.bin", []byte("two"))
		mustFetch(t, f, c, into)

		d.Delete("releases", "app/SHA256SUMS")
		_, err = f.Check(context.Background())
		wantCode(t, err, fault.MetaMissing)
	})

	t.Run("TUF", func(t *testing.T) {
		r := newRepository(t)
		r.list("targets", "app_1.bin", one)
		r.publish()
		d.mirror(r.dir)
		f := mustNew(t, d.follow(r.options()))
		if v := mustFetch(t, f, newest(t, f), t.TempDir()); !bytes.Equal(content(t, v), one) {
			t.Error("fetched something else")
		}
	})

	t.Run("unsigned, by its list", func(t *testing.T) {
		d.Bucket("lists")
		o := d.follow(Options{Target: "app", Patterns: []string{"app_@v.bin"}, Verify: VerifyNo})
		o.Path = "s3://lists"
		f := mustNew(t, o)
		if l := mustCheck(t, f); len(l.Candidates) != 0 {
			t.Fatalf("an empty bucket offers %v", l.Candidates)
		}
		d.Put("lists", "app_1.bin", one)
		d.Put("lists", "app_x.y.zip", one)
		listing := mustCheck(t, f)
		if len(listing.Candidates) != 1 || listing.Files != 2 || listing.Unchanged || listing.Candidates[0].HasDigest() {
			t.Fatalf("listing %+v", listing)
		}
		if again := mustCheck(t, f); !again.Unchanged {
			t.Error("the same list counts as another")
		}
		if v := mustFetch(t, f, listing.Candidates[0], t.TempDir()); !bytes.Equal(content(t, v), one) {
			t.Error("fetched something else")
		}
		d.Put("lists", "app_2.bin", []byte("two"))
		if c := newest(t, f); c.Version != "2" || c.Size != 3 {
			t.Errorf("newest is %+v", c)
		}
	})

	t.Run("no bucket", func(t *testing.T) {
		o := d.follow(newShop(t).options())
		o.Path = "s3://nowhere"
		_, err := mustNew(t, o).Check(context.Background())
		wantCode(t, err, fault.SourceMissing)
	})
}
