package signature

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Ring is who is trusted, and how many of them must have signed. The zero Ring
// trusts nobody.
type Ring struct {
	keys      []Key
	revoked   map[string]bool // by number
	threshold int
}

// New makes a ring of keys without those that are revoked. The same key twice is
// one; two spellings of one key are refused, since they would look like two
// signers. threshold is how many of the keys must sign; what could never be
// reached is refused.
func New(keys, revoked []Key, threshold int) (*Ring, error) {
	r := &Ring{revoked: map[string]bool{}, threshold: threshold}
	for _, k := range revoked {
		for _, n := range k.numbers() {
			r.revoked[n] = true
		}
	}
	for _, k := range keys {
		if err := r.add(k); err != nil {
			return nil, err
		}
	}
	usable := 0
	for _, k := range r.keys {
		if !r.isRevoked(k) {
			usable++
		}
	}
	switch {
	case len(r.keys) == 0:
		return nil, distrust("set Key=, or Verify=no for a source that needs no signature", "no trusted key")
	case len(r.keys) > KeysMax:
		return nil, distrust("", "more than %d trusted keys", KeysMax)
	case usable == 0:
		return nil, distrust("add the publisher's new key to Key=", "every trusted key is revoked: %s", ids(r.keys))
	case threshold < 1:
		return nil, distrust("Threshold= is 1 at least; Verify=no asks for no signature", "a threshold of %d lets anybody in", threshold)
	case threshold > usable:
		return nil, distrust("add keys to Key=, or lower Threshold=", "Threshold=%d can never be reached: %d of %d trusted keys can sign", threshold, usable, len(r.keys))
	}
	return r, nil
}

func (r *Ring) add(k Key) error {
	for i, known := range r.keys {
		if known.ID() == k.ID() {
			both, err := known.join(k)
			if err == nil {
				r.keys[i] = both
			}
			return err
		}
		if slices.ContainsFunc(k.numbers(), func(n string) bool { return slices.Contains(known.numbers(), n) }) {
			return distrust("remove one of them", "the %s key %s and the %s key %s are the same key", known.scheme(), known.ID(), k.scheme(), k.ID())
		}
	}
	r.keys = append(r.keys, k)
	return nil
}

func (r *Ring) isRevoked(k Key) bool {
	return k.revoked() || slices.ContainsFunc(k.numbers(), func(n string) bool { return r.revoked[n] })
}

// of gives the keys of a scheme, revoked ones too: it is worth telling that one
// of them signed.
func (r *Ring) of(s scheme) []Key {
	var keys []Key
	for _, k := range r.keys {
		if k.scheme() == s {
			keys = append(keys, k)
		}
	}
	return keys
}

// Files names the files that may hold signatures of a file, those first where
// most signatures are. Each is worth asking for until the count is enough.
func (r *Ring) Files(of string) []string {
	var usual, more []string
	for _, s := range schemes() {
		if keys := r.of(s); len(keys) > 0 {
			u, m := s.files(of, keys)
			usual, more = append(usual, u...), append(more, m...)
		}
	}
	return append(usual, more...)
}

// Count begins to count the signatures of a file: raw are its bytes as they were
// received, now is the time at which keys have to be good.
func (r *Ring) Count(of string, raw []byte, now time.Time) *Count {
	return &Count{ring: r, doc: document{of, raw, now}}
}

// Count finds out who signed a text.
type Count struct {
	ring     *Ring
	doc      document
	signers  []signing
	found    bool // a file with something in it
	problems []error
}

// Enough tells that as many keys have signed as must.
func (c *Count) Enough() bool {
	return c.ring.threshold > 0 && len(c.signers) >= c.ring.threshold
}

// Add takes in one of the ring's files; an empty one is as good as none.
func (c *Count) Add(file string, content []byte) {
	if len(bytes.TrimSpace(content)) == 0 {
		c.problems = append(c.problems, c.unsigned(file+" is empty"))
		return
	}
	c.found = true
	for _, s := range schemes() {
		keys := c.ring.of(s)
		if usual, more := s.files(c.doc.name, keys); len(keys) == 0 || !slices.Contains(append(usual, more...), file) {
			continue
		}
		signers, err := s.signers(c.doc, file, content, keys)
		for _, k := range signers {
			switch known := func(o signing) bool { return o.ID() == k.ID() }; {
			case c.ring.isRevoked(k):
				err = fault.New(fault.SigRevoked, fmt.Errorf("%s is signed by the revoked key %s", c.doc.name, k.ID()),
					"sign with another trusted key; if nobody of yours did this, somebody has the revoked key")
			case !slices.ContainsFunc(c.signers, known):
				c.signers = append(c.signers, k)
			}
		}
		if err != nil {
			c.problems = append(c.problems, err)
		}
	}
}

// Note takes in that a file could not be had: what err says is told if the
// others are not enough.
func (c *Count) Note(err error) {
	c.found = true
	c.problems = append(c.problems, err)
}

// Signed is who signed, and when.
type Signed struct {
	// By are the keys, as their tools print them, in the order in which they
	// were found.
	By []string
	// When the first of them did, by the signatures' own word: the least that
	// all of them say. Zero if one does not say, as those of SSH.
	When time.Time
}

// Result gives the keys that signed, or says why they are too few.
func (c *Count) Result() (Signed, error) {
	if c.Enough() {
		first := slices.MinFunc(c.signers, func(a, b signing) int { return a.when.Compare(b.when) })
		return Signed{By: c.names(), When: first.when}, nil
	}
	return Signed{}, c.tooFew()
}

func (c *Count) names() []string {
	var names []string
	for _, s := range c.signers {
		names = append(names, s.ID())
	}
	return names
}

// tooFew says what is missing.
func (c *Count) tooFew() error {
	if len(c.signers) > 0 {
		text := fmt.Sprintf("%d of the %d signatures that Threshold= asks for: by %s", len(c.signers), c.ring.threshold, strings.Join(c.names(), ", "))
		if len(c.problems) > 0 {
			text += "; " + bare(c.problems[0])
		}
		return fault.New(fault.SigThreshold, errors.New(text), "have others sign the same "+c.doc.name+"; docs/signing.md says in which files")
	}
	if !c.found {
		if len(c.problems) > 0 {
			return c.problems[0] // an empty file
		}
		return c.unsigned("no " + strings.Join(c.usual(), ", "))
	}
	return c.worst()
}

// usual names the files that a signature is first looked for in.
func (c *Count) usual() []string {
	var names []string
	for _, s := range schemes() {
		if keys := c.ring.of(s); len(keys) > 0 {
			usual, _ := s.files(c.doc.name, keys)
			names = append(names, usual...)
		}
	}
	return names
}

func (c *Count) unsigned(text string) error {
	var commands []string
	for _, s := range schemes() {
		if len(c.ring.of(s)) > 0 {
			commands = append(commands, s.command(c.doc.name))
		}
	}
	return fault.New(fault.SigMissing, errors.New(text), "sign it: "+strings.Join(commands, ", or "))
}

// worst gives the problem that tells most: a signature by a trusted key before
// one by a stranger, and that before a file that is none.
func (c *Count) worst() error {
	rank := func(err error) int {
		return slices.Index([]fault.Code{fault.SigRevoked, fault.SigBad, fault.SigExpired, fault.SigWeak, fault.SigNamespace, fault.SigKey, fault.SigSyntax}, fault.CodeOf(err))
	}
	best := c.problems[0]
	for _, p := range c.problems[1:] {
		if r, b := rank(p), rank(best); r >= 0 && (b < 0 || r < b) {
			best = p
		}
	}
	return best
}

func ids(keys []Key) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.ID())
	}
	return strings.Join(names, ", ")
}

// bare is an error without its code and hint.
func bare(err error) string {
	var e *fault.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// Failures of a signature, in one voice.

func stranger(d document, id string, trusted []Key) error {
	return fault.New(fault.SigKey, fmt.Errorf("%s is signed by key %s, trusted is %s", d.name, id, ids(trusted)),
		"sign with a trusted key, or add the new one to Key=")
}

func forged(d document, file, id string) error {
	return fault.New(fault.SigBad, fmt.Errorf("%s is not the signature of this %s (key %s)", file, d.name, id),
		"publish both together; if they do not match for long, somebody changed one")
}

func unreadable(s scheme, d document, file, why string) error {
	return fault.New(fault.SigSyntax, fmt.Errorf("%s is no %s signature: %s", file, s, why), "sign it: "+s.command(d.name))
}
