package fetcher_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"aead.dev/minisign"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Follow a directory, and take what a trusted key signed.
func Example() {
	ctx := context.Background()
	source, key := publish("app_1.4.2.bin", "the program")
	defer os.RemoveAll(source)

	f, err := fetcher.New(fetcher.Options{
		Target:   "app",
		Path:     source, // or https://…
		Patterns: []string{"app_@v.bin"},
		Keys:     []string{key},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()

	// 1. Wait returns at once the first time; later when there may be news,
	//    and after an error only when it is time to try again.
	if err := f.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	// 2. The signature is checked before the list is read.
	listing, err := f.Check(ctx)
	if err != nil {
		log.Fatal(err)
	}
	newest, ok := listing.Newest()
	if !ok {
		log.Fatal("nothing matches")
	}
	// 3. A directory that nobody else can write, on the disk where the release
	//    will be. A part that an earlier Fetch left there is completed.
	staging, err := os.MkdirTemp("", "incoming-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(staging)
	verified, err := f.Fetch(ctx, newest, staging, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer verified.Close()
	// 4. Read the file that was hashed, not what stands under its name now.
	program, err := io.ReadAll(verified.File())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", verified.Candidate().Version, program)
	// Output: 1.4.2: the program
}

// Every error has a code that stays the same, and says whether to try again.
func ExampleError() {
	source, key := publish("app_1.bin", "the program")
	defer os.RemoveAll(source)
	manifest := filepath.Join(source, "SHA256SUMS")
	if err := os.WriteFile(manifest, bytes.Repeat([]byte("0"), 100), 0o644); err != nil {
		log.Fatal(err)
	}
	f, err := fetcher.New(fetcher.Options{Target: "app", Path: source, Patterns: []string{"app_@v.bin"}, Keys: []string{key}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = f.Check(context.Background())
	var e *fetcher.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code == fault.SigBad, e.Code, e.Temporary)
	}
	// Output: true SIG_BAD false
}

// publish makes a source of one release, as "sha256sum * > SHA256SUMS" and
// "minisign -S -m SHA256SUMS" do. It gives the directory and the public key.
func publish(name, content string) (dir, key string) {
	dir, err := os.MkdirTemp("", "source-")
	if err != nil {
		log.Fatal(err)
	}
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	manifest := fmt.Appendf(nil, "%x  %s\n", sha256.Sum256([]byte(content)), name)
	for file, data := range map[string][]byte{
		name:                 []byte(content),
		"SHA256SUMS":         manifest,
		"SHA256SUMS.minisig": minisign.Sign(private, manifest),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
	return dir, public.String()
}
