package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// S3 follows one object of a bucket, of Amazon S3 or of what speaks its protocol.
type S3 struct {
	// Access and Secret are the keys, and Session goes with keys that were lent.
	// Default: AWS_ACCESS_KEY_ID (or AWS_ACCESS_KEY), AWS_SECRET_ACCESS_KEY and
	// AWS_SESSION_TOKEN of the environment; without those requests are anonymous. The
	// role of an instance is not asked for: upgraderd itself does.
	Access, Secret, Session string
	// Region of the bucket. Default ap-southeast-2.
	Region string
	// Bucket and Key name the object.
	Bucket, Key string
	// Interval is the time between two looks. Default 5 min.
	Interval time.Duration
	// HeadTimeout bounds the look. Default 5 s.
	HeadTimeout time.Duration
	// GetTimeout bounds the transfer. Default 5 min.
	GetTimeout time.Duration
	// Endpoint is the URL of another service than Amazon's, which has the bucket
	// in its path. Default: Amazon's.
	Endpoint string
	// Keys are as for HTTP; the signature is an object beside this one.
	Keys []string

	pace pace
	keys *ring
	base *url.URL
	seen string
}

// Init checks the fields.
func (s *S3) Init() error {
	switch {
	case s.Bucket == "":
		return errors.New("set Bucket of fetcher.S3")
	case s.Key == "":
		return errors.New("set Key of fetcher.S3")
	case (s.Access == "") != (s.Secret == ""):
		return errors.New("set Access and Secret of fetcher.S3, or neither")
	}
	if s.Region == "" {
		s.Region = "ap-southeast-2"
	}
	if s.Interval <= 0 {
		s.Interval = defaultInterval
	}
	if s.HeadTimeout <= 0 {
		s.HeadTimeout = 5 * time.Second
	}
	if s.GetTimeout <= 0 {
		s.GetTimeout = 5 * time.Minute
	}
	base := s.Endpoint
	if base == "" {
		base = "https://s3." + s.Region + ".amazonaws.com"
	}
	var err error
	if s.base, err = parseURL(base); err != nil {
		return err
	}
	s.keys, err = newRing(s.Keys)
	return err
}

// Fetch looks once.
func (s *S3) Fetch() (io.Reader, error) {
	s.pace.wait(s.Interval)
	ctx, cancel := context.WithTimeout(context.Background(), s.HeadTimeout)
	defer cancel()
	head, err := s.ask(ctx, http.MethodHead, s.Key)
	if err != nil {
		return nil, err
	}
	head.Body.Close()
	etag := head.Header.Get("ETag")
	if etag != "" && etag == s.seen {
		return nil, nil
	}
	ctx, cancel = context.WithTimeout(context.Background(), s.GetTimeout)
	resp, err := s.ask(ctx, http.MethodGet, s.Key) //nolint:bodyclose // finish hands it out
	if err != nil {
		cancel()
		return nil, err
	}
	beside := func(name string) ([]byte, error) {
		resp, err := s.ask(ctx, http.MethodGet, path.Join(path.Dir(s.Key), name))
		if err != nil {
			// A bucket that may not be listed says 403 for what is not there.
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(io.LimitReader(resp.Body, signatureMax))
	}
	body := &cancelling{resp.Body, cancel}
	return finish(path.Base(s.Key), body, s.keys, beside, func() { s.seen = etag })
}

// cancelling ends the request's time with its body.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// noBody is the SHA-256 of no bytes: what every request here carries.
const noBody = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (s *S3) ask(ctx context.Context, method, key string) (*http.Response, error) {
	u := *s.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + s.Bucket + "/" + strings.TrimPrefix(key, "/")
	u.RawPath = escape(u.Path)
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.URL.RawPath = u.RawPath
	r.Header.Set("Accept-Encoding", "identity")
	if c := s.credentials(); c.HasKeys() {
		r.Header.Set("X-Amz-Content-Sha256", noBody)
		// S3 wants the path as it is sent, not escaped once more.
		plain := func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
		if err := v4.NewSigner().SignHTTP(ctx, c, r, noBody, "s3", s.Region, time.Now(), plain); err != nil {
			return nil, fmt.Errorf("sign the request: %w", err)
		}
	}
	resp, err := do(r, http.StatusOK)
	if err != nil {
		return nil, fmt.Errorf("ask for s3://%s/%s: %w", s.Bucket, key, err)
	}
	return resp, nil
}

func (s *S3) credentials() aws.Credentials {
	if s.Access != "" {
		return aws.Credentials{AccessKeyID: s.Access, SecretAccessKey: s.Secret, SessionToken: s.Session}
	}
	id := os.Getenv("AWS_ACCESS_KEY_ID")
	if id == "" {
		id = os.Getenv("AWS_ACCESS_KEY")
	}
	return aws.Credentials{AccessKeyID: id, SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")}
}

// escape writes a path as it is signed: all but letters, digits, "-._~" and the
// slash as %XX.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
