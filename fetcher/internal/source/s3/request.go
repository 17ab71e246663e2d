package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
)

// ask makes a request of the keys of now, and once more if those were refused
// and there are others by then.
func (b *Bucket) ask(ctx context.Context, key string, query url.Values, name string, do func(client.Request) error) error {
	keys, err := b.lender.lend(ctx)
	if err != nil {
		return err
	}
	r, err := b.request(ctx, keys, key, query, name)
	if err != nil {
		return err
	}
	if err = do(r); fault.CodeOf(err) != fault.Denied {
		return err
	}
	others, ok := b.lender.renew(ctx, keys)
	if !ok {
		return err
	}
	if r, err = b.request(ctx, others, key, query, name); err != nil {
		return err
	}
	return do(r)
}

// noBody is the SHA-256 of no bytes: what every request here carries.
const noBody = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// request asks for an object, or for the bucket where key is empty. What the
// client adds (Range, If-None-Match, …) is not signed, and need not be.
func (b *Bucket) request(ctx context.Context, keys aws.Credentials, key string, query url.Values, name string) (client.Request, error) {
	u := *b.base
	if key != "" || u.Path == "" {
		u.Path += "/" + key
	}
	u.RawPath, u.RawQuery = escape(u.Path), query.Encode()
	r := client.Request{URL: &u, Name: name, Header: http.Header{}, Mark: markOf}
	if !keys.HasKeys() {
		return r, nil
	}
	signed, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return r, fault.New(fault.ConfigSource, errors.New("not a URL that can be asked"), "check Path= and Endpoint=")
	}
	signed.Header.Set("X-Amz-Content-Sha256", noBody)
	// S3 wants the path as it is sent, not escaped once more.
	plain := func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
	if err := v4.NewSigner().SignHTTP(ctx, keys, signed, noBody, "s3", b.region, b.now(), plain); err != nil {
		return r, fault.New(fault.ConfigSource, errors.New("the request cannot be signed"), "check the credentials")
	}
	r.URL, r.Header = signed.URL, signed.Header
	return r, nil
}

// escape writes a path as it is signed: all but letters, digits, "-._~" and the
// slash as %XX.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c == '/' || only(path[i:i+1], "-._~") {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
