package s3

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
)

// refusalMax is far more than S3 says of an error.
const refusalMax = 64 << 10

// refusal is the body of an answer that brings no object. Its Message is not
// shown: it may repeat what was sent.
type refusal struct {
	XMLName xml.Name `xml:"Error"`
	Code    string   `xml:"Code"`
	Region  string   `xml:"Region"`
}

// explain says what an answer means by the code in its body, which tells more
// than the status: 403 alone may be one of a dozen things.
func (b *Bucket) explain(a *client.Answer, f *fault.Error) *fault.Error {
	raw, err := io.ReadAll(io.LimitReader(a, refusalMax))
	var said refusal
	if err != nil || xml.Unmarshal(raw, &said) != nil || len(said.Code) > 64 || !only(said.Code, "") {
		said = refusal{}
	}
	resp := a.Response
	if region := resp.Header.Get("X-Amz-Bucket-Region"); region != "" {
		said.Region = region
	}
	if said.Code != "" {
		f.Err = fmt.Errorf("%w: %s", f.Err, said.Code)
	}
	anonymous := resp.Request.Header.Get("Authorization") == ""
	say := func(code fault.Code, temporary bool, hint string) *fault.Error {
		f.Code, f.Temporary, f.Hint = code, temporary, hint
		return f
	}
	switch said.Code {
	case "NoSuchBucket":
		return say(fault.SourceMissing, true, "create the bucket, or correct Path=, Endpoint= or Region=")
	case "InvalidBucketName":
		return say(fault.ConfigSource, false, pathHint)
	case "AccessDenied", "AllAccessDisabled":
		if anonymous {
			return say(fault.Denied, false, "let everybody read the bucket, or set CredentialFile= or InstanceRole=")
		}
		return say(fault.Denied, false, "allow s3:GetObject on the objects and s3:ListBucket on the bucket; without the latter S3 says the same of what is not there")
	case "InvalidAccessKeyId":
		return say(fault.Denied, false, "the access key is not known there: correct the credentials, or Endpoint=")
	case "SignatureDoesNotMatch":
		return say(fault.Denied, false, "correct the secret key; if it is right, look for a proxy that changes requests")
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return say(fault.Denied, false, "renew the session token in the credentials; with InstanceRole=yes that goes by itself")
	case "RequestTimeTooSkewed", "RequestExpired":
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			f.Err = fmt.Errorf("%w: the clock of this host is off by %v", f.Err, b.now().Sub(date).Round(time.Minute))
		}
		return say(fault.Denied, true, "set the clock of this host, or see why systemd-timesyncd does not")
	case "InvalidObjectState":
		return say(fault.Denied, false, "the object is archived: restore it, or publish releases in another storage class")
	case "SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests":
		return say(fault.Throttled, true, "raise PollIntervalSec=")
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return b.elsewhere(f, said.Region)
	case "":
		// Answers to some requests have no body, and proxies speak no XML.
		switch code := resp.StatusCode; {
		case code >= 300 && code < 400:
			return b.elsewhere(f, said.Region)
		case code == http.StatusServiceUnavailable:
			return say(fault.Throttled, true, "raise PollIntervalSec=")
		}
	}
	const hint = "see what the service means by that, and check CredentialFile= and Endpoint="
	switch {
	case f.Code == fault.Denied:
		f.Hint = hint
	case f.Code == fault.NotFound && said.Code != "NoSuchKey" && said.Code != "":
		return say(fault.Status, false, hint) // something else is not there
	}
	return f
}

// elsewhere is for a bucket that must be asked for in another place.
func (b *Bucket) elsewhere(f *fault.Error, region string) *fault.Error {
	f.Code, f.Temporary, f.Hint = fault.Redirect, false, "set Region= to the one that the bucket is in"
	if isRegion(region) && region != b.region {
		f.Err = fmt.Errorf("%w: the bucket is in region %s, and %s was asked", f.Err, region, b.region)
		f.Hint = "set Region=" + region
	}
	return f
}

var errNoRole = errors.New("this instance has no role")
