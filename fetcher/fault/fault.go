// Package fault says what went wrong between a source and a verified
// artifact. Every error that package fetcher returns is an *Error with a Code
// that never changes its meaning: people alert on it, and the upgrader decides
// by it when to try again.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code is a stable reason, e.g. "FETCH_STALLED". It is printed in brackets.
type Code string

// What stands in a .upgrade file is wrong; nothing changes until it is edited.
const (
	ConfigSource Code = "CONFIG_SOURCE" // path, pattern, CA file or limit
	ConfigTrust  Code = "CONFIG_TRUST"  // no key, or a key that cannot be trusted
)

// The way to the source.
const (
	Canceled  Code = "FETCH_CANCELED"  // the caller's context ended
	DNS       Code = "FETCH_DNS"       // the host name does not resolve
	Connect   Code = "FETCH_CONNECT"   // no connection: refused, unreachable, timed out
	Proxy     Code = "FETCH_PROXY"     // the proxy of the environment refuses or is out of reach
	TLS       Code = "FETCH_TLS"       // certificate or handshake
	Redirect  Code = "FETCH_REDIRECT"  // too many, or to where we do not go
	Protocol  Code = "FETCH_PROTOCOL"  // what came is not HTTP as it should be
	Encoding  Code = "FETCH_ENCODING"  // a content encoding nobody asked for
	Stalled   Code = "FETCH_STALLED"   // no byte for StallTimeout
	TooSlow   Code = "FETCH_TOO_SLOW"  // bytes, but fewer than the minimum rate
	Broken    Code = "FETCH_BROKEN"    // the connection died in the middle
	Size      Code = "FETCH_SIZE"      // more or fewer bytes than announced
	TooLarge  Code = "FETCH_TOO_LARGE" // more bytes than SizeMax
	NotFound  Code = "FETCH_NOT_FOUND" // no such file; 404, 410
	Denied    Code = "FETCH_DENIED"    // 401, 403, 451
	Throttled Code = "FETCH_THROTTLED" // 429
	Server    Code = "FETCH_SERVER"    // 5xx
	Status    Code = "FETCH_STATUS"    // any other status
)

// A directory as a source.
const (
	SourceMissing Code = "SOURCE_MISSING"  // no such directory
	SourceDenied  Code = "SOURCE_DENIED"   // permission
	SourceNotFile Code = "SOURCE_NOT_FILE" // a FIFO, device, link or directory
	SourceChanged Code = "SOURCE_CHANGED"  // the file changed while it was copied
	SourceIO      Code = "SOURCE_IO"       // the source's disk or mount fails
)

// The manifest and its signature.
const (
	MetaMissing   Code = "META_MISSING"    // no SHA256SUMS
	MetaEmpty     Code = "META_EMPTY"      // SHA256SUMS without a line
	MetaTooLarge  Code = "META_TOO_LARGE"  // manifest, signature or listing beyond its limit
	MetaSyntax    Code = "META_SYNTAX"     // a line that is not "HASH  NAME"
	MetaNotSigned Code = "META_NOT_SIGNED" // a web page instead of a manifest
	MetaExpired   Code = "META_EXPIRED"    // SHA256SUMS is past its own last day, or older than MaxAge
	MetaOlder     Code = "META_OLDER"      // an older SHA256SUMS than one that was believed before
	MetaUndated   Code = "META_UNDATED"    // MaxAge is asked for, and no signature says when it was made
	MetaUnlisted  Code = "META_UNLISTED"   // asked for what the last check did not list
	SigMissing    Code = "SIG_MISSING"     // no signature, or an empty one
	SigSyntax     Code = "SIG_SYNTAX"      // not a signature, or not one that is read
	SigKey        Code = "SIG_KEY"         // signed by a key that is not trusted
	SigBad        Code = "SIG_BAD"         // the signature is not of these bytes
	SigRevoked    Code = "SIG_REVOKED"     // signed by a key that was revoked
	SigExpired    Code = "SIG_EXPIRED"     // key or signature is not good at this time
	SigWeak       Code = "SIG_WEAK"        // hash, algorithm or key can be forged, or was not meant to sign
	SigNamespace  Code = "SIG_NAMESPACE"   // an SSH signature that was made for something else
	SigThreshold  Code = "SIG_THRESHOLD"   // too few of the trusted keys have signed
)

// The metadata of a TUF repository.
const (
	TUFMissing   Code = "TUF_MISSING"   // a file that the repository must have
	TUFSyntax    Code = "TUF_SYNTAX"    // not metadata, or not of the role that it should be
	TUFTooLarge  Code = "TUF_TOO_LARGE" // metadata, or the number of roles, beyond its limit
	TUFThreshold Code = "TUF_THRESHOLD" // too few of the role's keys have signed
	TUFExpired   Code = "TUF_EXPIRED"   // a role is past its time
	TUFRollback  Code = "TUF_ROLLBACK"  // older than what this host has seen
	TUFMixed     Code = "TUF_MIXED"     // files that do not belong together
)

// The artifact.
const (
	ArtifactDigest Code = "ARTIFACT_DIGEST" // other bytes than the manifest promises
	ArtifactEmpty  Code = "ARTIFACT_EMPTY"  // no bytes at all
)

// This host.
const (
	NoSpace  Code = "FS_NOSPACE"
	NoInodes Code = "FS_NOINODES"
	Quota    Code = "FS_QUOTA"
	ReadOnly Code = "FS_READONLY"
	IO       Code = "FS_IO"
	NoFiles  Code = "PROC_NOFILES" // out of file descriptors
)

// Error is one thing that went wrong. The zero value of every field but Code
// and Err means "not known" and is left out of the text.
type Error struct {
	// Code is the reason.
	Code Code
	// Target, Op and Source say whose, doing what, with which source:
	// "app", "fetch app_1.2.zst", "https://example.org/app". Source carries
	// neither user nor query of a URL.
	Target, Op, Source string
	// Err is what happened.
	Err error
	// Hint is what a person can do about it.
	Hint string
	// Temporary tells that the same request may succeed later although
	// nobody changes anything.
	Temporary bool
	// RetryAfter is how long the source asked to be left alone, at most an
	// hour. Zero when it did not ask.
	RetryAfter time.Duration
}

// Error reads "TARGET: OP from SOURCE: WHAT [CODE]; HINT".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Target != "" {
		b.WriteString(e.Target + ": ")
	}
	if e.Op != "" {
		b.WriteString(e.Op)
		if e.Source != "" {
			b.WriteString(" from " + e.Source)
		}
		b.WriteString(": ")
	}
	if e.Err != nil {
		b.WriteString(e.Err.Error() + " ")
	}
	b.WriteString("[" + string(e.Code) + "]")
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap gives what happened.
func (e *Error) Unwrap() error { return e.Err }

// Advice is the hint.
func (e *Error) Advice() string { return e.Hint }

// New is an error that lasts until somebody does something about it.
func New(code Code, err error, hint string) *Error {
	return &Error{Code: code, Err: err, Hint: hint}
}

// Passing is an error that may be gone at the next try.
func Passing(code Code, err error, hint string) *Error {
	return &Error{Code: code, Err: err, Hint: hint, Temporary: true}
}

// Also gives e with what went wrong after it: undoing something, say. more may
// be nil.
func (e *Error) Also(more error) *Error {
	if more == nil {
		return e
	}
	both := *e
	both.Err = fmt.Errorf("%w; and then %w", e.Err, more)
	return &both
}

// CodeOf tells the reason of err, "" where it has none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Bare gives the *Error inside err without what wraps it, which may be text of
// another package with a URL in it. Where there is none, it gives otherwise(err).
func Bare(err error, otherwise func(error) *Error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return otherwise(err)
}
