package fetcher

import "time"

// Verify says what makes a manifest trusted.
type Verify string

const (
	// VerifyMinisign demands a minisign signature (SHA256SUMS.minisig) over
	// the raw bytes of SHA256SUMS by one of the trusted keys.
	VerifyMinisign Verify = "minisign"
	// VerifyNo accepts what the source says. Digests still guard against
	// damage in transit, not against whoever controls the source.
	VerifyNo Verify = "no"
)

// Options say what to follow and whom to trust. The zero value of every
// optional field means the default named beside it.
type Options struct {
	// Target names the target in errors and log lines. Required.
	Target string
	// Path is an absolute directory or an http(s) URL of one. Required.
	Path string
	// Patterns select files of the source and tell their version; the first
	// that matches counts. Required. See ParsePattern.
	Patterns []string
	// Verify defaults to VerifyMinisign.
	Verify Verify
	// Keys are trusted minisign public keys, each the base64 line itself or
	// the absolute name of a file that holds one. Required unless VerifyNo.
	Keys []string
	// CAFile holds PEM certificates trusted for https beside the system's.
	CAFile string
	// PollInterval is the time between two looks at a source that cannot
	// say that it changed. Default 15 minutes.
	PollInterval time.Duration
	// RandomizedDelay is the most that is added to PollInterval, drawn anew
	// each time. Default 0.
	RandomizedDelay time.Duration
	// SizeMax bounds an artifact, in bytes. Default 1 GiB.
	SizeMax int64
	// StallTimeout ends a transfer that makes no progress. Default 30 s.
	StallTimeout time.Duration
}
