// Package versity runs versitygw, a server of the S3 protocol that checks
// signatures, for the tests of one process.
package versity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// Region is the one that the gateway is in.
const Region = "eu-test-1"

// ID and Secret are the keys of its owner.
const (
	ID     = "AKTESTTESTTEST"
	Secret = sourcetest.Canary + "/key+of=the/owner"
)

// Gateway is a running server.
type Gateway struct {
	t testing.TB
	// URL is its endpoint.
	URL string
	// Dir holds a directory for each bucket, with a file for each object.
	Dir string
}

// Start runs a gateway until the test ends.
func Start(t testing.TB) *Gateway {
	t.Helper()
	program := sourcetest.Tool(t, "versitygw")
	g := &Gateway{t: t, Dir: t.TempDir()}
	versions, home := t.TempDir(), t.TempDir()
	address := sourcetest.Serve(t, func(address string) *exec.Cmd {
		cmd := exec.Command(program, "--port", address, "--region", Region, "--quiet", "--virtual-domain", "s3.test", "--iam-dir", home,
			"posix", "--versioning-dir", versions, g.Dir)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "ROOT_ACCESS_KEY_ID=" + ID, "ROOT_SECRET_ACCESS_KEY=" + Secret}
		return cmd
	})
	g.URL = "http://" + address
	return g
}

// Bucket makes a bucket.
func (g *Gateway) Bucket(name string) {
	g.t.Helper()
	g.Do(http.MethodPut, name, "", nil)
}

// KeepVersions has a bucket keep what is replaced.
func (g *Gateway) KeepVersions(bucket string) {
	g.t.Helper()
	g.Do(http.MethodPut, bucket, "versioning", []byte(`<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>`))
}

// LetAnybodyRead lets anonymous requests list a bucket and get its objects.
func (g *Gateway) LetAnybodyRead(bucket string) {
	g.t.Helper()
	g.Do(http.MethodPut, bucket, "policy", fmt.Appendf(nil, `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::%[1]s/*"},
		{"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::%[1]s"}]}`, bucket))
}

// Put makes an object.
func (g *Gateway) Put(bucket, key string, content []byte) {
	g.t.Helper()
	g.Do(http.MethodPut, bucket+"/"+key, "", content)
}

// Delete removes an object.
func (g *Gateway) Delete(bucket, key string) {
	g.t.Helper()
	g.Do(http.MethodDelete, bucket+"/"+key, "", nil)
}

// Touch makes an object where the gateway finds it, past all that it does with
// one that is sent: for thousands of them.
func (g *Gateway) Touch(bucket, key string) {
	g.t.Helper()
	name := filepath.Join(g.Dir, bucket, key)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// Do sends a request of the owner's and gives the answer's ETag and body.
func (g *Gateway) Do(method, path, query string, body []byte) (etag string, answer []byte) {
	g.t.Helper()
	u, err := url.Parse(g.URL)
	if err != nil {
		g.t.Fatal(err)
	}
	u.Path, u.RawPath, u.RawQuery = "/"+path, "/"+escape(path), query
	r, err := http.NewRequest(method, u.String(), bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Content-Sha256", digest)
	keys := aws.Credentials{AccessKeyID: ID, SecretAccessKey: Secret}
	plain := func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
	if err := v4.NewSigner().SignHTTP(context.Background(), keys, r, digest, "s3", Region, time.Now(), plain); err != nil {
		g.t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		g.t.Fatalf("%s %s: %s: %s, %v", method, path, resp.Status, answer, err)
	}
	return resp.Header.Get("ETag"), answer
}

func escape(path string) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(path))
}
