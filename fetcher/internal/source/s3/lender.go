package s3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
)

// lender knows the keys that requests are signed with. Its methods may be called
// from several goroutines.
type lender interface {
	// lend gives the keys of now, none for anonymous requests.
	lend(ctx context.Context) (aws.Credentials, error)
	// renew gives others than those, which were refused, if there are some.
	renew(ctx context.Context, refused aws.Credentials) (aws.Credentials, bool)
	close()
}

// lender gives what the options ask for.
func (o Options) lender() (lender, error) {
	switch {
	case o.CredentialFile != "" && o.InstanceRole:
		return nil, fault.New(fault.ConfigSource, errors.New("keys are to come from a file and from the instance's role"), "remove CredentialFile= or InstanceRole=")
	case o.CredentialFile != "":
		_, err := readKeys(o.CredentialFile)
		return file(o.CredentialFile), err
	case o.InstanceRole:
		return newRole(o)
	}
	keys := aws.Credentials{AccessKeyID: o.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: o.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: o.Getenv("AWS_SESSION_TOKEN")}
	if (keys.AccessKeyID == "") != (keys.SecretAccessKey == "") {
		return nil, fault.New(fault.ConfigSource, errors.New("of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY one is set"), "set both in the daemon's environment, or none")
	}
	return fixed(keys), nil
}

// fixed are keys that stay as they are.
type fixed aws.Credentials

func (k fixed) lend(context.Context) (aws.Credentials, error) { return aws.Credentials(k), nil }
func (k fixed) renew(context.Context, aws.Credentials) (aws.Credentials, bool) {
	return aws.Credentials{}, false
}
func (k fixed) close() {}

// file is the name of an AWS credentials file, which is read for each request: one
// that was replaced counts at once.
type file string

func (f file) lend(context.Context) (aws.Credentials, error) { return readKeys(string(f)) }
func (f file) renew(context.Context, aws.Credentials) (aws.Credentials, bool) {
	return aws.Credentials{}, false
}
func (f file) close() {}

func same(a, b aws.Credentials) bool {
	return a.AccessKeyID == b.AccessKeyID && a.SecretAccessKey == b.SecretAccessKey && a.SessionToken == b.SessionToken
}

const credentialsHint = "CredentialFile= takes the absolute name of a file with [default], aws_access_key_id= and aws_secret_access_key="

// readKeys reads a credentials file. No error repeats a line of it.
func readKeys(name string) (aws.Credentials, error) {
	refuse := func(err error) (aws.Credentials, error) {
		return aws.Credentials{}, fault.New(fault.ConfigSource, err, credentialsHint)
	}
	if !filepath.IsAbs(name) {
		return refuse(errors.New("the credentials file has no absolute name"))
	}
	raw, err := credential.Read(name)
	if err != nil {
		return refuse(err)
	}
	keys, err := parseKeys(raw)
	if err != nil {
		return refuse(fmt.Errorf("%s %w", name, err))
	}
	return keys, nil
}

// CheckKeys tells whether raw can be what Options.CredentialFile holds. Its error
// quotes none of it.
func CheckKeys(raw []byte) error {
	_, err := parseKeys(raw)
	return err
}

// parseKeys reads the profile default of an AWS credentials file; see
// https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html.
func parseKeys(raw []byte) (aws.Credentials, error) {
	if len(raw) > credential.Max {
		return aws.Credentials{}, fmt.Errorf("has more than %d bytes", credential.Max)
	}
	var keys aws.Credentials
	fields := map[string]*string{"aws_access_key_id": &keys.AccessKeyID, "aws_secret_access_key": &keys.SecretAccessKey, "aws_session_token": &keys.SessionToken}
	profile := ""
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, credential.Max+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			name, ok := strings.CutSuffix(line[1:], "]")
			if !ok {
				return aws.Credentials{}, fmt.Errorf("has a [ without its ] in line %d", n)
			}
			profile = strings.TrimSpace(name)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return aws.Credentials{}, fmt.Errorf("has neither [PROFILE] nor KEY=VALUE in line %d", n)
		}
		if field := fields[strings.ToLower(strings.TrimSpace(key))]; field != nil && profile == "default" {
			*field = strings.TrimSpace(value)
			if strings.ContainsFunc(*field, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return aws.Credentials{}, fmt.Errorf("has a value with characters that no key has, in line %d", n)
			}
		}
	}
	if keys.AccessKeyID == "" || keys.SecretAccessKey == "" {
		return aws.Credentials{}, errors.New("has no aws_access_key_id and aws_secret_access_key in [default]")
	}
	return keys, nil
}
