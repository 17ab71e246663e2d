package store_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/upgraderd/upgraderd/upgrader/store"
)

// From a verified artifact to the release that any start of the service runs.
func Example() {
	top, err := os.MkdirTemp("", "upgraderd")
	if err != nil {
		log.Fatal(err)
	}
	s, err := store.Open(filepath.Join(top, "app"))
	if err != nil {
		log.Fatal(err)
	}
	unlock, err := s.Lock() // whoever writes holds it
	if err != nil {
		log.Fatal(err)
	}
	defer unlock()

	artifact := []byte("#!/bin/sh\necho hello\n")
	digest := store.Digest(sha256.Sum256(artifact))
	release, err := store.NewRelease("1.4.2", digest)
	if err != nil {
		log.Fatal(err)
	}
	// Before anything is fetched: is there room, also to say that it failed?
	if err := s.Preflight(2 * int64(len(artifact))); err != nil {
		log.Fatal(err)
	}
	tree, err := s.IncomingTree(digest)
	if err != nil {
		log.Fatal(err)
	}
	// unpack.Unpack does this, and checks.
	if err := os.WriteFile(filepath.Join(tree, "app"), artifact, 0o755); err != nil {
		log.Fatal(err)
	}
	if err := s.Install(context.Background(), tree, release, digest); err != nil {
		log.Fatal(err)
	}
	// The step about to be taken is on disk before it is taken.
	if err := s.SaveRecord(map[string]string{"step": "swap", "to": release.Name}); err != nil {
		log.Fatal(err)
	}
	if err := s.SetLink(store.Current, release); err != nil {
		log.Fatal(err)
	}
	if err := s.CleanIncoming(nil); err != nil {
		log.Fatal(err)
	}

	to, err := os.Readlink(filepath.Join(s.Path(), "current"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("current ->", to)

	// Releases are read-only, so that even tidying up goes through the store.
	if err := s.ClearLink(store.Current); err != nil {
		log.Fatal(err)
	}
	if err := s.Remove(release); err != nil {
		log.Fatal(err)
	}
	if err := os.RemoveAll(top); err != nil {
		log.Fatal(err)
	}
	// Output: current -> releases/1.4.2-bfdeaeb08cff
}
