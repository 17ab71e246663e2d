package fetcher

import (
	"time"

	"github.com/upgraderd/upgraderd/fetcher/command"
)

// Verify says what makes a manifest trusted.
type Verify string

const (
	// VerifySigned demands signatures of the raw bytes of SHA256SUMS by
	// trusted keys, of the kind that the keys are: minisign, OpenPGP or SSH.
	VerifySigned Verify = "signed"
	// VerifyTUF demands that Path holds a repository of The Update Framework,
	// metadata/ and targets/, whose roles follow from the root in Root.
	VerifyTUF Verify = "tuf"
	// VerifyNo accepts what the source says. Digests still guard against
	// damage in transit, not against whoever controls the source.
	VerifyNo Verify = "no"
)

// Options say what to follow and whom to trust. The zero value of every
// optional field means the default named beside it.
type Options struct {
	// Target names the target in errors and log lines. Required.
	Target string
	// Path is an absolute directory, an http(s) URL of one, a prefix of a
	// bucket, s3://BUCKET/PREFIX, an artifact of a registry,
	// oci://REGISTRY/REPOSITORY:TAG, or a project whose releases count:
	// github://OWNER/REPO, gitlab://HOST/GROUP/PROJECT or
	// gitea://HOST/OWNER/REPO, or exec: and the absolute name of a command that
	// package command describes. Required.
	Path string
	// Mirrors are further http(s) URLs, at most 15, that hold the same as Path,
	// tried in order where those before fail. Of Path and Mirrors the first that
	// is as new as what was seen counts. Default: none.
	Mirrors []string
	// NoManifest has Path, and each of Mirrors, be the http(s) URL of one file,
	// the artifact, with its signatures beside it, or with VerifyNo none. Its
	// version is when it was signed or, with VerifyNo, changed.
	NoManifest bool
	// Patterns select files of the source and tell their version; the first
	// that matches counts. Required, but with NoManifest. See ParsePattern. With VerifyTUF they
	// select targets, and may begin with a directory.
	Patterns []string
	// Verify defaults to VerifySigned.
	Verify Verify
	// Keys are trusted public keys: each entry is one line of minisign or
	// SSH, or the absolute name of a file of keys, see signature.Parse.
	// Required with VerifySigned, and for it alone.
	Keys []string
	// RevokedKeys are written like Keys and never trusted, in whatever
	// spelling they stand among them.
	RevokedKeys []string
	// Threshold is how many of the keys must have signed. Default 1.
	Threshold int
	// MaxAge is how long a list is believed after it was signed. Default: for
	// ever.
	MaxAge time.Duration
	// Seen is the newest list that was believed before; an older one is
	// refused. Default: none was.
	Seen Seen
	// Root is the absolute name of the root.json that is trusted. Required
	// with VerifyTUF, and for it alone.
	Root string
	// StateDir is where what VerifyTUF trusts is kept: a directory of the
	// target alone, absolute, made by Check in one that exists. Whoever
	// removes it has the fetcher begin anew from Root. Required by Check
	// with VerifyTUF.
	StateDir string
	// Bases finds files of this host for patches to start from. Default: there
	// are none, and Fetch always brings the whole artifact.
	Bases Bases `json:"-"`
	// CAFile holds PEM certificates trusted for https beside the system's.
	CAFile string
	// TokenFile is the absolute name of a file with the token that lets this
	// host in: one line. It is read for each request, and not shown to Mirrors
	// on another host, as are those below. Default: none.
	TokenFile string
	// LoginFile is the absolute name of a file with user:password in one line,
	// read as TokenFile. Of both and a user in Path, one may be given.
	// Default: none.
	LoginFile string
	// CertificateFile and PrivateKeyFile are absolute names of PEM files: what
	// this host shows to an https server that asks for a certificate. They are
	// read for each connection. Both or neither.
	CertificateFile, PrivateKeyFile string
	// Endpoint is the URL of the service that has a bucket or an artifact, or of
	// the API of GitHub, GitLab or Gitea, which is https, or http of this host.
	// Default: Amazon's, the registry in Path, or the forge's own.
	Endpoint string
	// CredentialFile, Region, AddressingStyle ("auto", "path" or "virtual") and
	// InstanceRole are for Path of s3://BUCKET/PREFIX and say what the AWS
	// tools mean by these words. The file is absolute, and read for each
	// request; InstanceRole asks the instance metadata service instead. Without
	// either, AWS_ACCESS_KEY_ID and its kin of the environment count, and
	// without these requests are anonymous. Region defaults to AWS_REGION, then
	// to us-east-1; AddressingStyle to "auto": "path" with
	// an Endpoint, and else "virtual" where the bucket's name allows it.
	CredentialFile, Region, AddressingStyle string
	InstanceRole                            bool
	// Current is the name of a file of the source, one line or JSON, or of a
	// symbolic link, that names the release to run: by its file or its version,
	// as JSON together with the file of its configuration. Not with VerifyTUF. Default: the newest is wanted.
	Current string
	// Command runs the command of Path. Default: as a child of this process,
	// with its standard error.
	Command command.Run `json:"-"`
	// Tag is that of the one release of a forge that counts. Default: the
	// newest does.
	Tag string
	// PreRelease has the newest release of a forge count even if it is marked
	// as a pre-release. Default: the newest of the others does.
	PreRelease bool
	// PollInterval is the time between two looks at a source that cannot
	// say that it changed. Default 15 minutes.
	PollInterval time.Duration
	// RandomizedDelay is the most that is added to PollInterval, drawn anew
	// each time. Default 0.
	RandomizedDelay time.Duration
	// FixedDelay has RandomizedDelay not drawn anew but be the same each time,
	// at the point of its range that these 64 bits are of theirs. Zero: drawn.
	FixedDelay uint64
	// BandwidthMax is how many bytes a second are fetched of an artifact, at
	// most. Default 0: as many as come.
	BandwidthMax int64
	// SizeMax bounds an artifact, in bytes. Default SizeMaxDefault.
	SizeMax int64
	// BandwidthMin ends a transfer over http(s) that brings fewer bytes a second,
	// over a minute of waiting. Default 1 KiB/s.
	BandwidthMin int64
	// StallTimeout ends a transfer that makes no progress. Default 30 s.
	StallTimeout time.Duration
}
