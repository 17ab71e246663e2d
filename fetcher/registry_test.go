package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"testing"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/registry"
)

// TestArtifact follows an artifact of a registry by each way to trust it.
func TestArtifact(t *testing.T) {
	r := registry.Start(t, "")
	one, two := noise(t, 1<<20), noise(t, 100)
	follow := func(o Options, artifact string) Options {
		o.Path, o.Endpoint = "oci://registry.example.com/"+artifact, "http://"+r.Address
		return o
	}
	unsigned := Options{Target: "app", Patterns: []string{"app_@v.bin"}, Verify: VerifyNo}

	t.Run("signed", func(t *testing.T) {
		leaks(t)
		s := newShop(t)
		push := func() {
			files := map[string][]byte{manifestName: s.manifest(), signatureName: minisign.Sign(s.private, s.manifest())}
			for name, content := range s.files {
				files[name] = content
			}
			r.Artifact("acme/signed", "stable", files, nil)
		}
		s.files["app_1.bin"] = one
		push()
		f := mustNew(t, follow(s.options(), "acme/signed:stable"))
		first := newest(t, f)
		if !mustCheck(t, f).Unchanged {
			t.Error("the same artifact counts as another")
		}

		// The tag moves between check and fetch.
		delete(s.files, "app_1.bin")
		s.files["app_2.bin"] = two
		push()
		if v := mustFetch(t, f, first, t.TempDir()); !bytes.Equal(content(t, v), one) {
			t.Error("fetched something else than was checked")
		}
		second := newest(t, f)
		if v := mustFetch(t, f, second, t.TempDir()); second.Version != "2" || !bytes.Equal(content(t, v), two) {
			t.Errorf("fetched something else for %v", second)
		}

		// A list that promises other bytes than the layer has: none is fetched.
		lie := bytes.Replace(s.manifest(), []byte("app_2.bin"), []byte("app_3.bin"), 1)
		r.Artifact("acme/signed", "stable", map[string][]byte{manifestName: lie, signatureName: minisign.Sign(s.private, lie), "app_3.bin": one}, nil)
		_, err := f.Fetch(context.Background(), newest(t, f), t.TempDir(), nil)
		wantCode(t, err, fault.ArtifactDigest)

		r.Artifact("acme/signed", "stable", map[string][]byte{manifestName: s.manifest(), "app_2.bin": two}, nil)
		_, err = f.Check(context.Background())
		wantCode(t, err, fault.SigMissing)
	})

	t.Run("unsigned, by its manifest", func(t *testing.T) {
		r.Artifact("acme/plain", "stable", map[string][]byte{"app_1.bin": one, "other": two}, nil)
		f := mustNew(t, follow(unsigned, "acme/plain:stable"))
		listing := mustCheck(t, f)
		if len(listing.Candidates) != 1 || listing.Files != 2 || listing.Candidates[0].Digest != sha256.Sum256(one) {
			t.Fatalf("listing %+v", listing)
		}
		if !mustCheck(t, f).Unchanged {
			t.Error("the same artifact counts as another")
		}
		if v := mustFetch(t, f, listing.Candidates[0], t.TempDir()); !bytes.Equal(content(t, v), one) {
			t.Error("fetched something else")
		}
		// The same version with other bytes is another candidate.
		r.Artifact("acme/plain", "stable", map[string][]byte{"app_1.bin": two}, nil)
		if c := newest(t, f); c.Digest != sha256.Sum256(two) {
			t.Errorf("newest is %+v", c)
		}
	})

	t.Run("version by annotation", func(t *testing.T) {
		o := follow(unsigned, "acme/titled:stable")
		o.Patterns = []string{"@v/app"}
		r.Artifact("acme/titled", "stable", map[string][]byte{"app": one}, map[string]string{"org.opencontainers.image.version": "1.4"})
		f := mustNew(t, o)
		if c := newest(t, f); c.Version != "1.4" || c.Name != "app" {
			t.Errorf("newest is %+v", c)
		}
		r.Artifact("acme/titled", "stable", map[string][]byte{"app": two}, map[string]string{"org.opencontainers.image.version": "1.5"})
		c := newest(t, f)
		if v := mustFetch(t, f, c, t.TempDir()); c.Version != "1.5" || !bytes.Equal(content(t, v), two) {
			t.Errorf("fetched %+v", c)
		}
	})

	t.Run("nothing there", func(t *testing.T) {
		_, err := mustNew(t, follow(newShop(t).options(), "acme/none:stable")).Check(context.Background())
		wantCode(t, err, fault.SourceMissing)
		r.Artifact("acme/empty", "stable", nil, nil)
		_, err = mustNew(t, follow(newShop(t).options(), "acme/empty:stable")).Check(context.Background())
		wantCode(t, err, fault.MetaMissing)
		_, err = New(follow(newRepository(t).options(), "acme/empty:stable"), nil)
		wantCode(t, err, fault.ConfigSource)
	})
}
