package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest/versity"
)

// wantRefused asks b in each way there is, and wants the same of all.
func wantRefused(t *testing.T, b *Bucket, code fault.Code, temporary bool, says ...string) {
	t.Helper()
	before := sourcetest.OpenFiles(t)
	_, _, read := b.Read(context.Background(), "SHA256SUMS", 100, "")
	_, open := b.Open(context.Background(), "SHA256SUMS", source.Position{})
	_, list := b.List(context.Background(), 100)
	for _, err := range []error{read, open, list} {
		sourcetest.WantCode(t, err, code, temporary)
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v; want it to say %q", err, s)
			}
		}
		if len(err.Error()) > 500 || !strings.Contains(err.Error(), "; ") {
			t.Errorf("an error of %d bytes, or without a hint: %v", len(err.Error()), err)
		}
	}
	sourcetest.Settled(t, before)
}

// TestRefused is what a real server says to what is wrong.
func TestRefused(t *testing.T) {
	g := versity.Start(t)
	g.Bucket("releases")
	g.Put("releases", "SHA256SUMS", []byte("x"))
	for _, c := range []struct {
		name      string
		path      string
		change    func(*Options)
		clock     time.Duration
		code      fault.Code
		temporary bool
		says      []string
	}{
		{name: "wrong secret", change: func(o *Options) { o.CredentialFile = credentials(t, versity.ID, canary) },
			code: fault.Denied, says: []string{"403", "SignatureDoesNotMatch", "secret key"}},
		{name: "unknown key", change: func(o *Options) { o.CredentialFile = credentials(t, "AKNOBODY", canary) },
			code: fault.Denied, says: []string{"403", "InvalidAccessKeyId"}},
		{name: "unknown session token", change: func(o *Options) {
			o.CredentialFile = ""
			o.Getenv = environment("AWS_ACCESS_KEY_ID", versity.ID, "AWS_SECRET_ACCESS_KEY", versity.Secret, "AWS_SESSION_TOKEN", canary)
		}, code: fault.Denied, says: []string{"InvalidToken", "renew the session token"}},
		{name: "anonymous", change: func(o *Options) { o.CredentialFile = "" },
			code: fault.Denied, says: []string{"403", "AccessDenied", "CredentialFile="}},
		{name: "no such bucket", path: "s3://nowhere", code: fault.SourceMissing, temporary: true, says: []string{"404", "NoSuchBucket"}},
		{name: "fast clock", clock: time.Hour, code: fault.Denied, temporary: true, says: []string{"403", "RequestTimeTooSkewed", "off by 1h0m", "clock"}},
		{name: "slow clock", clock: -25 * time.Hour, code: fault.Denied, temporary: true, says: []string{"off by -25h0m"}},
		{name: "another region", change: func(o *Options) { o.Region = "us-west-2" },
			code: fault.Redirect, says: []string{"region " + versity.Region, "us-west-2 was asked", "set Region=" + versity.Region}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, g)
			if c.change != nil {
				c.change(&o)
			}
			if c.path == "" {
				c.path = "s3://releases"
			}
			b := open(t, c.path, o)
			b.now = func() time.Time { return time.Now().Add(c.clock) }
			wantRefused(t, b, c.code, c.temporary, c.says...)
		})
	}
}

// TestLiars is a table of services that are out of order, overloaded, or none.
func TestLiars(t *testing.T) {
	text := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if key, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(key, value)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	refusal := func(code, more string) string {
		return "<?xml version=\"1.0\"?>\n<Error><Code>" + code + "</Code><Message>" + canary + "</Message>" + more + "</Error>"
	}
	for _, c := range []struct {
		name      string
		serve     http.HandlerFunc
		code      fault.Code
		temporary bool
		says      string
	}{
		{"overloaded", text(503, "Retry-After: 7", refusal("SlowDown", "")), fault.Throttled, true, "SlowDown"},
		{"overloaded, in another way", text(429, "", refusal("TooManyRequests", "")), fault.Throttled, true, "TooManyRequests"},
		{"overloaded, without a word", text(503, "", ""), fault.Throttled, true, "503"},
		{"broken", text(500, "", refusal("InternalError", "")), fault.Server, true, "InternalError"},
		{"moved for good", text(301, "X-Amz-Bucket-Region: eu-west-3", refusal("PermanentRedirect", "<Endpoint>b.example.com</Endpoint>")), fault.Redirect, false, "set Region=eu-west-3"},
		{"moved for now", text(307, "Location: http://127.0.0.1:1/", refusal("TemporaryRedirect", "")), fault.Redirect, false, "TemporaryRedirect"},
		{"moved, without a word", text(301, "", ""), fault.Redirect, false, "set Region= to the one"},
		{"region of another kind", text(400, "", refusal("AuthorizationHeaderMalformed", "<Region>a\nb</Region>")), fault.Redirect, false, "set Region= to the one"},
		{"token is old", text(400, "", refusal("ExpiredToken", "")), fault.Denied, false, "ExpiredToken"},
		{"archived", text(403, "", refusal("InvalidObjectState", "")), fault.Denied, false, "archived"},
		{"no name of a bucket", text(400, "", refusal("InvalidBucketName", "")), fault.ConfigSource, false, "Path="},
		{"a code nobody knows", text(418, "", refusal("Teapot", "")), fault.Status, false, "418"},
		{"a code that is none", text(403, "", refusal("<![CDATA[\x1b[31m "+canary+"]]>", "")), fault.Denied, false, "403"},
		{"a refusal without end", text(403, "", refusal("AccessDenied", strings.Repeat("<a>", 1<<20))), fault.Denied, false, "403"},
		{"a page for people", text(403, "", "<html><body>"+canary), fault.Denied, false, "403"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.serve)
			defer server.Close()
			b := open(t, "s3://releases", Options{Endpoint: server.URL, CredentialFile: credentials(t, "AK", canary), Getenv: environment()})
			wantRefused(t, b, c.code, c.temporary, c.says)
			if _, _, err := b.Read(context.Background(), "x", 1, ""); strings.Contains(c.name, "overloaded") && c.says == "SlowDown" {
				var f *fault.Error
				if !errors.As(err, &f) || f.RetryAfter != 7*time.Second {
					t.Errorf("%v does not pass on how long to wait", err)
				}
			}
		})
	}
}

// TestListLiars is a table of lists that are none, or never end.
func TestListLiars(t *testing.T) {
	const head = `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>`
	const object = `<Contents><Key>app_1</Key><Size>5</Size></Contents>`
	n := 0
	for _, c := range []struct {
		name string
		page func() string
		code fault.Code // "" where app_1 must be listed
		size int64
	}{
		{"honest", func() string { return head + object + `</ListBucketResult>` }, "", 5},
		{"a name that is escaped, and need not be", func() string {
			return head + `<EncodingType>url</EncodingType><Contents><Key>%61pp_1</Key><Size>5</Size></Contents></ListBucketResult>`
		}, "", 5},
		{"a name that is not escaped as it should be", func() string {
			return head + `<EncodingType>url</EncodingType><Contents><Key>%zz</Key></Contents></ListBucketResult>`
		}, fault.Protocol, 0},
		{"a page for people", func() string { return "<html></html>" }, fault.Protocol, 0},
		{"nothing", func() string { return "" }, fault.Protocol, 0},
		{"cut off", func() string { return head + object }, fault.Protocol, 0},
		{"a size that is no number", func() string {
			return head + `<Contents><Key>app_1</Key><Size>many</Size></Contents></ListBucketResult>`
		}, fault.Protocol, 0},
		{"too long", func() string { return head + strings.Repeat(object, 60_000) + strings.Repeat(" ", pageMax) }, fault.MetaTooLarge, 0},
		{"more, but not from where", func() string { return head + `<IsTruncated>true</IsTruncated></ListBucketResult>` }, fault.Protocol, 0},
		{"the same page again and again", func() string {
			return head + `<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken></ListBucketResult>`
		}, fault.Protocol, 0},
		{"pages without end", func() string {
			n++
			return fmt.Sprintf(head+`<IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken></ListBucketResult>`, n)
		}, fault.Protocol, 0},
		{"objects without end", func() string {
			n++
			return fmt.Sprintf(head+object+`<IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken></ListBucketResult>`, n)
		}, fault.MetaTooLarge, 0},
		{"names that lead elsewhere", func() string {
			return head + object + `<Contents><Key>../x</Key></Contents><Contents><Key></Key></Contents><Contents><Key>..</Key></Contents></ListBucketResult>`
		}, "", 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			n = 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.page()) }))
			defer server.Close()
			b := open(t, "s3://releases", Options{Endpoint: server.URL, Getenv: environment()})
			files, err := b.List(context.Background(), 100)
			if c.code != "" {
				sourcetest.WantCode(t, err, c.code, c.code == fault.Protocol)
			} else if err != nil || len(files) != 1 || files[0] != (source.File{Name: "app_1", Size: c.size}) {
				t.Errorf("listed %v, %v", files, err)
			}
		})
	}
}

// TestNew is a table of what cannot be followed, found before anything is asked.
func TestNew(t *testing.T) {
	keys := func(text string) func(*Options) {
		return func(o *Options) {
			o.CredentialFile = filepath.Join(t.TempDir(), "credentials")
			if err := os.WriteFile(o.CredentialFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name, path string
		change     func(*Options)
		says       string // "" where it can be followed
	}{
		{"plain", "s3://releases", nil, ""},
		{"prefix", "s3://releases/a/b/", nil, ""},
		{"no bucket", "s3:///a", nil, "s3://BUCKET/PREFIX"},
		{"a name too short", "s3://ab", nil, "s3://BUCKET/PREFIX"},
		{"a port", "s3://releases:80", nil, "s3://BUCKET/PREFIX"},
		{"a user", "s3://" + canary + "@releases", nil, "s3://BUCKET/PREFIX"},
		{"a query", "s3://releases?x=" + canary, nil, "s3://BUCKET/PREFIX"},
		{"a way out", "s3://releases/a/../..", nil, "not a plain path"},
		{"two slashes", "s3://releases/a//b", nil, "not a plain path"},
		{"region", "s3://releases", func(o *Options) { o.Region = "eu west" }, "Region="},
		{"endpoint without a scheme", "s3://releases", func(o *Options) { o.Endpoint = "s3.example.com" }, "Endpoint="},
		{"endpoint with a user", "s3://releases", func(o *Options) { o.Endpoint = "https://u:" + canary + "@s3.example.com" }, "Endpoint="},
		{"style", "s3://releases", func(o *Options) { o.Style = "host" }, "AddressingStyle="},
		{"no file", "s3://releases", func(o *Options) { o.CredentialFile = "/nowhere" }, "/nowhere"},
		{"not absolute", "s3://releases", func(o *Options) { o.CredentialFile = "keys" }, "CredentialFile="},
		{"a directory", "s3://releases", func(o *Options) { o.CredentialFile = t.TempDir() }, "not a regular file"},
		{"empty file", "s3://releases", keys(""), "no aws_access_key_id"},
		{"another profile", "s3://releases", keys("[work]\naws_access_key_id=AK\naws_secret_access_key=" + canary), "in [default]"},
		{"half a key", "s3://releases", keys("[default]\naws_secret_access_key=" + canary), "no aws_access_key_id"},
		{"no syntax", "s3://releases", keys("[default]\n" + canary), "line 2"},
		{"open bracket", "s3://releases", keys("[default\n"), "line 1"},
		{"a control character", "s3://releases", keys("[default]\naws_access_key_id=AK\naws_secret_access_key=" + canary + "\x01"), "line 3"},
		{"a large file", "s3://releases", keys("[default]\n" + strings.Repeat("#\n", 40<<10)), "more than"},
		{"keys and role", "s3://releases", func(o *Options) {
			keys("[default]\naws_access_key_id=a\naws_secret_access_key=b")(o)
			o.InstanceRole = true
		}, "InstanceRole="},
		{"half an environment", "s3://releases", func(o *Options) { o.Getenv = environment("AWS_SECRET_ACCESS_KEY", canary) }, "AWS_ACCESS_KEY_ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.path)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Getenv: environment()}
			if c.change != nil {
				c.change(&o)
			}
			b, err := New(u, o)
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				b.Close()
				return
			}
			sourcetest.WantCode(t, err, fault.ConfigSource, false)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want it to say %q", err, c.says)
			}
		})
	}
}
