package fetcher

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/signature"
)

const stallTimeoutDefault = 30 * time.Second

// What Options leave open: a look every quarter of an hour, and 1 GiB.
const (
	PollIntervalDefault = 15 * time.Minute
	SizeMaxDefault      = 1 << 30
)

// Fetcher follows one source for one target. Check, Fetch and Wait are steps of
// one loop and not meant to run at the same time; the other methods may be
// called whenever.
type Fetcher struct {
	o        Options
	log      *slog.Logger
	mirrors  []*mirror // Path=, then each Mirror=
	patterns []Pattern
	root     []byte // with VerifyTUF
	now      func() time.Time
	ring     *signature.Ring // nil with VerifyNo

	mu     sync.Mutex
	listed *mirror // that the last Check believed
	seen   Seen    // the newest list that was believed
	rhythm rhythm
}

// New reads the options: keys and certificates are loaded here, the source is
// not yet asked. log may be nil.
func New(o Options, log *slog.Logger) (*Fetcher, error) {
	f := &Fetcher{o: o, log: log, seen: o.Seen, now: time.Now}
	err := f.configure()
	if err == nil {
		f.mirrors, err = openMirrors(f.o)
	}
	if err != nil {
		e := fault.New(fault.ConfigSource, err, "")
		var known *Error
		if errors.As(err, &known) {
			*e = *known
		}
		e.Target, e.Op = f.name(), "configure source"
		return nil, e
	}
	return f, nil
}

// configure checks the options and sets their defaults.
func (f *Fetcher) configure() error {
	o := &f.o
	bad := func(hint, format string, a ...any) error {
		return fault.New(fault.ConfigSource, fmt.Errorf(format, a...), hint)
	}
	if o.Target == "" {
		return bad("", "the target has no name")
	}
	if o.Verify == "" {
		o.Verify = VerifySigned
	}
	if o.Verify != VerifyTUF && o.Root != "" {
		return fault.New(fault.ConfigTrust, fmt.Errorf("a root is given, but Verify=%s asks for none", o.Verify), "remove Root=, or set Verify=tuf")
	}
	switch o.Verify {
	case VerifyTUF:
		if len(o.Keys)+len(o.RevokedKeys)+max(0, o.Threshold-1) > 0 {
			return fault.New(fault.ConfigTrust, errors.New("keys are given, but with Verify=tuf the root says which keys count"), "remove Key=, RevokedKey= and Threshold=, or Verify=tuf")
		}
		root, err := loadRoot(o.Root)
		if err != nil {
			return err
		}
		f.root = root
	case VerifyNo:
		if len(o.Keys) > 0 {
			return fault.New(fault.ConfigTrust, errors.New("keys are given, but Verify=no does not ask for a signature"), "remove Key=, or Verify=no")
		}
	case VerifySigned:
		if o.Threshold == 0 {
			o.Threshold = 1
		}
		ring, err := loadRing(*o)
		if err != nil {
			return err
		}
		f.ring = ring
	default:
		return fault.New(fault.ConfigTrust, fmt.Errorf("verification %q is unknown", o.Verify), "Verify= takes signed, tuf or no")
	}
	if o.NoManifest {
		switch {
		case o.Verify == VerifyTUF:
			return bad("remove Manifest=no", "there is to be no manifest, and a TUF repository has one")
		case len(o.Patterns) > 0:
			return bad("remove MatchPattern=, or Manifest=no", "patterns are given, and without a manifest there is one file")
		}
	}
	if len(o.Patterns) == 0 && !o.NoManifest {
		return bad("set MatchPattern=, e.g. app_@v.zst", "no pattern tells which files are releases")
	}
	for _, text := range o.Patterns {
		p, err := ParsePattern(text)
		if err != nil {
			return bad("see MatchPattern= in sysupdate.d(5)", "%w", err)
		}
		if p.dir != "" && o.Verify != VerifyTUF {
			return bad("put directories into Path=", "pattern %q names a directory, and a source is one", text)
		}
		f.patterns = append(f.patterns, p)
	}
	if f.versionsByTag() && !hasTags(*o) {
		return bad("have the names of the files hold the version", "a pattern looks for the version in a tag, and the source has none")
	}
	if o.Current != "" && (o.Verify == VerifyTUF || o.NoManifest || checkName(o.Current) != nil) {
		return bad("Current= takes the name of a file in the source, and none with Verify=tuf or Manifest=no", "no file of the source can be %q", o.Current)
	}
	if o.PollInterval < 0 || o.RandomizedDelay < 0 || o.StallTimeout < 0 || o.SizeMax < 0 || o.MaxAge < 0 || o.BandwidthMin < 0 || o.BandwidthMax < 0 {
		return bad("", "a time or a size is negative")
	}
	if o.PollInterval == 0 {
		o.PollInterval = PollIntervalDefault
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = stallTimeoutDefault
	}
	if o.SizeMax == 0 {
		o.SizeMax = SizeMaxDefault
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.log = f.log.With("target", o.Target)
	if f.Unsigned() {
		f.log = f.log.With("unsigned", true)
	}
	return nil
}

// Unsigned tells that the source is believed without a signature. Whoever logs
// about this target says so.
func (f *Fetcher) Unsigned() bool { return f.o.Verify == VerifyNo }

// String names target and source, and says when it is unsigned. It holds
// neither user nor query of a URL.
func (f *Fetcher) String() string {
	text := f.name() + " from " + f.mirrors[0].source.String()
	for _, m := range f.mirrors[1:] {
		text += ", " + m.source.String()
	}
	return text
}

// Close ends the use of f and frees what its source holds. It does not end a
// Check, Fetch or Wait: their contexts do.
func (f *Fetcher) Close() {
	for _, m := range f.mirrors {
		m.close()
	}
}

func (f *Fetcher) name() string {
	if f.Unsigned() {
		return f.o.Target + " (unsigned)"
	}
	return f.o.Target
}
