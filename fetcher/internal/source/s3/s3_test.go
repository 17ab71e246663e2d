package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/versity"
)

const canary = sourcetest.Canary

// prefix is a publisher's view of a bucket.
type prefix struct {
	*versity.Gateway
	bucket, dir string
}

func (p prefix) Publish(name string, content []byte) { p.Put(p.bucket, p.dir+name, content) }
func (p prefix) Remove(name string)                  { p.Delete(p.bucket, p.dir+name) }

// environment is one of the daemon in which these and no other names are set.
func environment(set ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(set); i += 2 {
			if set[i] == name {
				return set[i+1]
			}
		}
		return ""
	}
}

func credentials(t *testing.T, id, secret string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "credentials")
	writeCredentials(t, name, id, secret)
	return name
}

func writeCredentials(t *testing.T, name, id, secret string) {
	t.Helper()
	text := fmt.Sprintf("# of the test\n[other]\naws_access_key_id = x\n[default]\naws_access_key_id = %s\naws_secret_access_key=%s\nregion = us-west-2\n", id, secret)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// options reach a gateway with its owner's keys.
func options(t *testing.T, g *versity.Gateway) Options {
	t.Helper()
	return Options{Endpoint: g.URL, Region: versity.Region, CredentialFile: credentials(t, versity.ID, versity.Secret), Getenv: environment()}
}

func open(t *testing.T, path string, o Options) *Bucket {
	t.Helper()
	u, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(u, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestConforms(t *testing.T) {
	g := versity.Start(t)
	n := 0
	bucket := func(t *testing.T) string {
		n++
		name := fmt.Sprintf("bucket-%d", n)
		g.Bucket(name)
		g.Put(name, "outside", []byte("outside"))
		return name
	}
	withPrefix := func(t *testing.T) prefix {
		p := prefix{Gateway: g, bucket: bucket(t), dir: "app/"}
		g.Put(p.bucket, "app/sub/inside", []byte("inside"))
		return p
	}
	for _, c := range []struct {
		name string
		open func(t *testing.T) (source.Source, sourcetest.Publisher)
	}{
		{"path", func(t *testing.T) (source.Source, sourcetest.Publisher) {
			p := withPrefix(t)
			return open(t, "s3://"+p.bucket+"/app", options(t, g)), p
		}},
		{"versions", func(t *testing.T) (source.Source, sourcetest.Publisher) {
			p := withPrefix(t)
			g.KeepVersions(p.bucket)
			return open(t, "s3://"+p.bucket+"/app/", options(t, g)), p
		}},
		{"whole bucket, anonymous", func(t *testing.T) (source.Source, sourcetest.Publisher) {
			p := prefix{Gateway: g, bucket: bucket(t)}
			g.Delete(p.bucket, "outside")
			g.Put(p.bucket, "sub/inside", []byte("inside"))
			g.LetAnybodyRead(p.bucket)
			return open(t, "s3://"+p.bucket, Options{Endpoint: g.URL, Region: versity.Region, Getenv: environment()}), p
		}},
	} {
		t.Run(c.name, func(t *testing.T) { sourcetest.Conform(t, c.open) })
	}
}

func list(t *testing.T, b *Bucket, max int) []source.File {
	t.Helper()
	files, err := b.List(context.Background(), max)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestWhere is where requests go, and how their paths are written.
func TestWhere(t *testing.T) {
	for _, c := range []struct {
		path string
		o    Options
		want string
	}{
		{"s3://releases/app", Options{}, "https://releases.s3.us-east-1.amazonaws.com/app/SHA256SUMS"},
		{"s3://releases", Options{Region: "eu-central-1"}, "https://releases.s3.eu-central-1.amazonaws.com/SHA256SUMS"},
		{"s3://releases", Options{Getenv: environment("AWS_DEFAULT_REGION", "eu-west-1")}, "https://releases.s3.eu-west-1.amazonaws.com/SHA256SUMS"},
		{"s3://releases", Options{Region: "cn-north-1"}, "https://releases.s3.cn-north-1.amazonaws.com.cn/SHA256SUMS"},
		{"s3://www.example.com", Options{}, "https://s3.us-east-1.amazonaws.com/www.example.com/SHA256SUMS"},
		{"s3://Old_Bucket", Options{}, "https://s3.us-east-1.amazonaws.com/Old_Bucket/SHA256SUMS"},
		{"s3://releases", Options{Style: StylePath}, "https://s3.us-east-1.amazonaws.com/releases/SHA256SUMS"},
		{"s3://releases/app", Options{Endpoint: "https://minio.example.com:9000/"}, "https://minio.example.com:9000/releases/app/SHA256SUMS"},
		{"s3://releases", Options{Endpoint: "https://example.com:443/s3"}, "https://example.com/s3/releases/SHA256SUMS"},
		{"s3://releases", Options{Endpoint: "http://example.com:80", Style: StyleVirtual}, "http://releases.example.com/SHA256SUMS"},
		{"s3://releases/a b+c", Options{}, "https://releases.s3.us-east-1.amazonaws.com/a%20b%2Bc/SHA256SUMS"},
	} {
		if c.o.Getenv == nil {
			c.o.Getenv = environment()
		}
		b := open(t, c.path, c.o)
		r, err := b.request(context.Background(), aws.Credentials{}, b.prefix+"SHA256SUMS", nil, "SHA256SUMS")
		if err != nil || r.URL.String() != c.want || len(r.Header) != 0 {
			t.Errorf("%s: %v, %v, %v; want %s and no header", c.path, r.URL, r.Header, err, c.want)
		}
	}
}

// TestVirtualHost has the bucket in the host's name, where the signature has to
// have it, too.
func TestVirtualHost(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	g.Put("releases", "SHA256SUMS", []byte("hello"))
	o := options(t, g)
	o.Endpoint, o.Style = "http://s3.test", StyleVirtual
	var to string
	o.Client.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		to = address
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(g.URL, "http://"))
	}
	b := open(t, "s3://releases", o)
	raw, _, err := b.Read(context.Background(), "SHA256SUMS", 10, "")
	if err != nil || string(raw) != "hello" || to != "releases.s3.test:80" {
		t.Errorf("read %q, %v, from %s", raw, err, to)
	}
	if files := list(t, b, 10); len(files) != 1 {
		t.Errorf("listed %v", files)
	}
}

// TestTenThousand lists so many versions, a thousand a page.
func TestTenThousand(t *testing.T) {
	const count = 10_000
	g := versity.Start(t)
	g.Bucket("releases")
	for i := range count {
		g.Touch("releases", fmt.Sprintf("app/app_%d", i))
	}
	g.Touch("releases", "app/old/app_1")
	g.Touch("releases", "application")
	b := open(t, "s3://releases/app", options(t, g))
	seen := map[string]bool{}
	for _, f := range list(t, b, count) {
		if f.Size != 1 || !strings.HasPrefix(f.Name, "app_") {
			t.Fatalf("listed %v", f)
		}
		seen[f.Name] = true
	}
	if len(seen) != count {
		t.Errorf("%d names, want %d", len(seen), count)
	}
	_, err := b.List(context.Background(), count-1)
	sourcetest.WantCode(t, err, fault.MetaTooLarge, false)
}

// TestMultipart uploads an object in two parts: its ETag is no digest of it, and
// does for a mark.
func TestMultipart(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	content := make([]byte, 5<<20+1000)
	for i := range content {
		content[i] = byte(i >> 10)
	}
	_, answer := g.Do(http.MethodPost, "releases/app_1", "uploads=", nil)
	var upload struct{ UploadId string }
	if err := xml.Unmarshal(answer, &upload); err != nil {
		t.Fatal(err)
	}
	done := "<CompleteMultipartUpload>"
	for i, part := range [][]byte{content[:5<<20], content[5<<20:]} {
		etag, _ := g.Do(http.MethodPut, "releases/app_1", fmt.Sprintf("partNumber=%d&uploadId=%s", i+1, upload.UploadId), part)
		done += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, etag)
	}
	g.Do(http.MethodPost, "releases/app_1", "uploadId="+upload.UploadId, []byte(done+"</CompleteMultipartUpload>"))
	b := open(t, "s3://releases", options(t, g))
	stream := sourcetest.MustOpen(t, b, "app_1", source.Position{})
	if !strings.HasSuffix(string(stream.Mark), `-2"`) {
		t.Errorf("mark %q is not of an upload in two parts", stream.Mark)
	}
	if got := sourcetest.MustReadAll(t, stream); !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, want those %d", len(got), len(content))
	}
	rest := sourcetest.MustOpen(t, b, "app_1", source.Position{Offset: 5 << 20, Mark: stream.Mark})
	if got := sourcetest.MustReadAll(t, rest); rest.Offset != 5<<20 || !bytes.Equal(got, content[5<<20:]) {
		t.Errorf("went on at %d with %d bytes", rest.Offset, len(got))
	}
}

// TestVersions replaces an object by one with the same bytes, where versions are
// kept: it is another one.
func TestVersions(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	g.KeepVersions("releases")
	g.Put("releases", "app_1", []byte("hello"))
	b := open(t, "s3://releases", options(t, g))
	first := sourcetest.MustOpen(t, b, "app_1", source.Position{})
	sourcetest.MustReadAll(t, first)
	g.Put("releases", "app_1", []byte("hello"))
	second := sourcetest.MustOpen(t, b, "app_1", source.Position{Offset: 2, Mark: first.Mark})
	sourcetest.MustReadAll(t, second)
	if second.Offset != 0 || second.Mark == first.Mark {
		t.Errorf("offset %d, marks %q and %q", second.Offset, first.Mark, second.Mark)
	}
	if tag, _, ok := strings.Cut(string(first.Mark), " "); !ok || !strings.HasPrefix(string(second.Mark), tag+" ") {
		t.Errorf("marks %q and %q; want one tag and two versions", first.Mark, second.Mark)
	}
}

// TestRotation replaces the keys under a source that goes on.
func TestRotation(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	g.Put("releases", "SHA256SUMS", []byte("hello"))
	o := options(t, g)
	b := open(t, "s3://releases", o)
	read := func() error {
		_, _, err := b.Read(context.Background(), "SHA256SUMS", 10, "")
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	writeCredentials(t, o.CredentialFile, versity.ID, canary)
	sourcetest.WantCode(t, read(), fault.Denied, false)
	if err := os.Remove(o.CredentialFile); err != nil {
		t.Fatal(err)
	}
	sourcetest.WantCode(t, read(), fault.ConfigSource, false)
	writeCredentials(t, o.CredentialFile, versity.ID, versity.Secret)
	if err := read(); err != nil {
		t.Error(err)
	}
}

func TestEnvironment(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	g.Put("releases", "SHA256SUMS", []byte("hello"))
	o := Options{Endpoint: g.URL, Getenv: environment("AWS_ACCESS_KEY_ID", versity.ID, "AWS_SECRET_ACCESS_KEY", versity.Secret, "AWS_REGION", versity.Region)}
	if _, _, err := open(t, "s3://releases", o).Read(context.Background(), "SHA256SUMS", 10, ""); err != nil {
		t.Error(err)
	}
}

// FuzzCredentials: whatever a credentials file holds, no error shows it.
func FuzzCredentials(f *testing.F) {
	f.Add("[default]\naws_access_key_id=AK\naws_secret_access_key=" + canary + "\naws_session_token = x\n")
	f.Add("[default]\n" + canary)
	f.Add("[" + canary + "\n=\n;")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys([]byte(text))
		if err == nil && (keys.AccessKeyID == "" || keys.SecretAccessKey == "") {
			t.Error("no keys, and no error")
		}
		if err != nil && (strings.Contains(err.Error(), canary) || keys.HasKeys()) {
			t.Errorf("%v with %v", err, keys.HasKeys())
		}
	})
}
