package s3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
)

const (
	// metadataService is the same on every instance, and no router passes it on.
	metadataService = "http://169.254.169.254"
	// metadataStall: it is a process of the hypervisor, or nobody is there.
	metadataStall = 5 * time.Second
	metadataMax   = 16 << 10
	// renewBefore is how long before their end keys are renewed. The service
	// has new ones at least five minutes before.
	renewBefore = 5 * time.Minute
	// renewAgain is how old keys must be for a refusal to be laid to their age.
	renewAgain = time.Minute
)

// role lends the keys of the instance's role, by version 2 of the metadata
// service: a token first, which a request that somebody was tricked into making
// does not have. See https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/
// instancedata-data-retrieval.html.
type role struct {
	base   *url.URL
	client *client.Client
	now    func() time.Time

	turn chan struct{} // holds one element while nobody uses what follows
	keys aws.Credentials
	got  time.Time // when the keys came
}

func newRole(o Options) (*role, error) {
	service := metadataService
	if other := o.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); other != "" {
		service = other
	}
	base, err := url.Parse(service)
	if err != nil || base.Scheme != "http" || base.Hostname() == "" || base.User != nil {
		return nil, fault.New(fault.ConfigSource, errors.New("AWS_EC2_METADATA_SERVICE_ENDPOINT is not a plain http URL"), "correct it in the daemon's environment, or remove it")
	}
	// A proxy would get the keys, and answer for another instance.
	c, err := client.New(base.Hostname(), client.Options{StallTimeout: metadataStall, NoProxy: true, NoRedirect: true})
	if err != nil {
		return nil, err
	}
	r := &role{base: base, client: c, now: time.Now, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r, nil
}

func (r *role) close() { r.client.Close() }

func (r *role) lend(ctx context.Context) (aws.Credentials, error) {
	if err := r.enter(ctx); err != nil {
		return aws.Credentials{}, err
	}
	defer r.leave()
	now := r.now()
	if r.keys.HasKeys() && now.Before(r.keys.Expires.Add(-renewBefore)) {
		return r.keys, nil
	}
	err := r.fetch(ctx)
	if err != nil && now.Before(r.keys.Expires) {
		err = nil // they are good for some minutes
	}
	return r.keys, err
}

func (r *role) renew(ctx context.Context, refused aws.Credentials) (aws.Credentials, bool) {
	if r.enter(ctx) != nil {
		return aws.Credentials{}, false
	}
	defer r.leave()
	if same(r.keys, refused) {
		if r.now().Sub(r.got) < renewAgain || r.fetch(ctx) != nil {
			return aws.Credentials{}, false
		}
	}
	return r.keys, !same(r.keys, refused)
}

func (r *role) enter(ctx context.Context) error {
	select {
	case <-r.turn:
		return nil
	case <-ctx.Done():
		return fault.Context(ctx)
	}
}

func (r *role) leave() { r.turn <- struct{}{} }

// fetch asks for token, role and keys.
func (r *role) fetch(ctx context.Context) error {
	token, err := r.get(ctx, http.MethodPut, "latest/api/token", http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil {
		return err
	}
	with := http.Header{"X-Aws-Ec2-Metadata-Token": {token}}
	const roles = "latest/meta-data/iam/security-credentials/"
	names, err := r.get(ctx, http.MethodGet, roles, with)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(names, "\n")
	if name == "" || strings.Contains(name, "/") {
		return noRole(errNoRole)
	}
	text, err := r.get(ctx, http.MethodGet, roles+url.PathEscape(name), with)
	if err != nil {
		return err
	}
	var said struct {
		Code, AccessKeyID, SecretAccessKey, Token string
		Expiration                                time.Time
	}
	// Its error would show what it read.
	if json.Unmarshal([]byte(text), &said) != nil || said.AccessKeyID == "" || said.SecretAccessKey == "" || said.Expiration.IsZero() {
		return noRole(fmt.Errorf("the metadata service gives no keys of the role %.64q", name))
	}
	r.keys = aws.Credentials{AccessKeyID: said.AccessKeyID, SecretAccessKey: said.SecretAccessKey, SessionToken: said.Token, CanExpire: true, Expires: said.Expiration}
	r.got = r.now()
	return nil
}

func noRole(err error) error {
	return fault.Passing(fault.Denied, err, "give the instance a role that may read the bucket, or remove InstanceRole=")
}

// get reads one line or so of metadata.
func (r *role) get(ctx context.Context, method, path string, header http.Header) (string, error) {
	request := client.Request{Method: method, URL: r.base.JoinPath(path), Name: "instance metadata", Header: header}
	raw, _, err := r.client.Read(ctx, request, metadataMax, "")
	if err == nil {
		return strings.TrimSpace(string(raw)), nil
	}
	f := *fault.Bare(err, fault.Local)
	switch f.Code {
	case fault.NotFound:
		return "", noRole(errNoRole)
	case fault.Canceled:
	case fault.Connect, fault.Stalled:
		f.Err, f.Hint = fmt.Errorf("instance metadata service: %w", f.Err), "InstanceRole= is for instances that have one"
	default:
		f.Err, f.Hint = fmt.Errorf("instance metadata service: %w", f.Err), "see whether the instance allows version 2 of it"
	}
	return "", &f
}
