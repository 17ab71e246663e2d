// Package s3 is a source: the objects below one prefix of a bucket, of Amazon S3
// or of whatever speaks its protocol. Its promise: the secret key never leaves
// this host, requests are signed for one host and follow no redirect, and an
// ETag tells states of an object apart but is never taken for a digest: that of a
// multipart upload is none.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

// Style is where a request names the bucket.
type Style string

const (
	// StyleAuto is StylePath for an endpoint that is named and for bucket names
	// that are no part of a host's, else StyleVirtual.
	StyleAuto Style = "auto"
	// StylePath has it before the object: https://HOST/BUCKET/OBJECT.
	StylePath Style = "path"
	// StyleVirtual has it in the host's name: https://BUCKET.HOST/OBJECT.
	StyleVirtual Style = "virtual"
)

// Options say how to reach a bucket. The zero value of a field means the
// default named beside it.
type Options struct {
	// Endpoint is the http or https URL of the service. Default: that of
	// Amazon in Region.
	Endpoint string
	// Region defaults to AWS_REGION, AWS_DEFAULT_REGION or us-east-1.
	Region string
	// Style defaults to StyleAuto.
	Style Style
	// CredentialFile is the absolute name of an AWS credentials file, of which
	// the profile default counts. It is read for each request.
	CredentialFile string
	// InstanceRole has the keys come from the instance metadata service, in
	// its version 2. With neither, those of the environment count; without
	// any, requests are anonymous.
	InstanceRole bool
	// Getenv defaults to os.Getenv.
	Getenv func(string) string
	// Client says how to speak to the service.
	Client client.Options
}

// Bucket is a prefix of a bucket. It signs what it asks.
type Bucket struct {
	name   string
	prefix string   // "" or "a/b/"
	base   *url.URL // of the bucket, without a slash at the end
	region string
	lender lender
	client *client.Client
	now    func() time.Time
}

var (
	_ source.Source = (*Bucket)(nil)
	_ source.Lister = (*Bucket)(nil)
	_ source.Closer = (*Bucket)(nil)
)

const pathHint = "Path= takes s3://BUCKET/PREFIX"

// New follows the prefix that u names: s3://BUCKET/PREFIX. A credentials file is
// read here; nothing is asked of the service yet.
func New(u *url.URL, o Options) (*Bucket, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	b := &Bucket{name: u.Host, region: o.region(), now: time.Now}
	if u.User != nil || u.RawQuery != "" || !isBucketName(b.name) {
		return nil, fault.New(fault.ConfigSource, errors.New("the URL of the bucket holds more than its name and a prefix, or no name that a bucket can have"), pathHint)
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		if path.Clean(prefix) != prefix || strings.HasPrefix(prefix, "../") || prefix == ".." || prefix == "." {
			return nil, fault.New(fault.ConfigSource, fmt.Errorf("the prefix %q is not a plain path", prefix), pathHint)
		}
		b.prefix = prefix + "/"
	}
	if !isRegion(b.region) {
		return nil, fault.New(fault.ConfigSource, fmt.Errorf("%.64q is no name of a region", b.region), "Region= takes a name such as eu-central-1")
	}
	base, err := o.bucketURL(b.name, b.region)
	if err != nil {
		return nil, err
	}
	b.base = base
	if b.lender, err = o.lender(); err != nil {
		return nil, err
	}
	o.Client.NoRedirect, o.Client.Explain = true, b.explain
	b.client, err = client.New(base.Hostname(), o.Client)
	return b, err
}

func (o Options) region() string {
	for _, region := range []string{o.Region, o.Getenv("AWS_REGION"), o.Getenv("AWS_DEFAULT_REGION")} {
		if region != "" {
			return region
		}
	}
	return "us-east-1"
}

// bucketURL tells where a bucket is.
func (o Options) bucketURL(name, region string) (*url.URL, error) {
	endpoint := &url.URL{Scheme: "https", Host: "s3." + region + ".amazonaws.com"}
	if strings.HasPrefix(region, "cn-") {
		endpoint.Host += ".cn"
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fault.New(fault.ConfigSource, errors.New("the endpoint is not a plain http(s) URL"), "Endpoint= takes a URL such as https://s3.example.com")
		}
		endpoint = &url.URL{Scheme: u.Scheme, Host: withoutDefaultPort(u), Path: strings.TrimRight(u.Path, "/")}
	}
	style := o.Style
	if style == "" || style == StyleAuto {
		style = StyleVirtual
		if o.Endpoint != "" || !isHostLabel(name) { // for which no certificate is good
			style = StylePath
		}
	}
	switch style {
	case StylePath:
		return endpoint.JoinPath(name), nil
	case StyleVirtual:
		endpoint.Host = name + "." + endpoint.Host
		return endpoint, nil
	}
	return nil, fault.New(fault.ConfigSource, fmt.Errorf("%.20q is no style of addressing", style), "AddressingStyle= takes auto, path or virtual")
}

// withoutDefaultPort is the host as it is signed, and so has to be sent.
func withoutDefaultPort(u *url.URL) string {
	if port := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]; strings.HasSuffix(u.Host, port) {
		return strings.TrimSuffix(u.Host, port)
	}
	return u.Host
}

// isBucketName tells what a bucket may be called somewhere: Amazon's own names
// of today are stricter.
func isBucketName(s string) bool {
	return len(s) >= 3 && len(s) <= 63 && s[0] != '.' && only(s, "-._") && !strings.Contains(s, "..")
}

func isHostLabel(s string) bool { return s == strings.ToLower(s) && only(s, "-") }

func isRegion(s string) bool { return s != "" && len(s) <= 64 && only(s, "-") }

// only tells that s holds nothing but letters, digits and what is in more.
func only(s, more string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"+more) == ""
}

// String gives bucket and prefix.
func (b *Bucket) String() string {
	return strings.TrimSuffix("s3://"+b.name+"/"+b.prefix, "/")
}

// Close frees connections that no request uses.
func (b *Bucket) Close() {
	b.client.Close()
	b.lender.close()
}

// Read gets a small object whole, if it is not as it was.
func (b *Bucket) Read(ctx context.Context, name string, max int64, since source.Mark) (raw []byte, mark source.Mark, err error) {
	if err := source.CheckName(name); err != nil {
		return nil, "", err
	}
	err = b.ask(ctx, b.prefix+name, nil, name, func(r client.Request) (err error) {
		raw, mark, err = b.client.Read(ctx, r, max, since)
		return err
	})
	return raw, mark, err
}

// Open starts to get an object, from the middle if it is the one that it was.
func (b *Bucket) Open(ctx context.Context, name string, from source.Position) (stream *source.Stream, err error) {
	if err := source.CheckName(name); err != nil {
		return nil, err
	}
	err = b.ask(ctx, b.prefix+name, nil, name, func(r client.Request) (err error) {
		stream, err = b.client.Open(ctx, r, from)
		return err
	})
	return stream, err
}

// markOf tells states of an object apart. Two versions may have the same bytes
// and so the same ETag; a bucket that keeps versions numbers them. The ETag has
// no date's doubts: it is of the bytes, or of the upload.
func markOf(header http.Header) source.Mark {
	const max = 512 // far longer than any that means well
	etag, version := header.Get("ETag"), header.Get("X-Amz-Version-Id")
	switch {
	case etag == "" || len(etag)+len(version) > max || strings.Contains(etag, " "):
		return ""
	case version == "" || version == "null":
		return source.Mark(etag)
	}
	return source.Mark(etag + " " + version)
}
