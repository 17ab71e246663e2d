package signature

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Namespace is what an SSH signature has to be made for, so that one made for
// something else, a commit or a login, does not count as a release.
const Namespace = "upgraderd"

// sshScheme is what ssh-keygen -Y sign makes: armoured, a file may hold several,
// one behind the other.
type sshScheme struct{}

func (sshScheme) String() string { return "SSH" }

// files are .sshsig, which says what it is, and .sig, which ssh-keygen writes.
func (sshScheme) files(of string, _ []Key) (usual, more []string) {
	return []string{of + ".sshsig", of + ".sig"}, nil
}

func (sshScheme) command(of string) string {
	return "ssh-keygen -Y sign -n " + Namespace + " -f KEY " + of
}

// sshKey is a public key, and when it may sign.
type sshKey struct {
	ssh.PublicKey
	number string
	grants []grant // any of them is enough
}

// ID is the fingerprint as ssh-keygen prints it.
func (k *sshKey) ID() string        { return ssh.FingerprintSHA256(k.PublicKey) }
func (*sshKey) scheme() scheme      { return sshScheme{} }
func (k *sshKey) numbers() []string { return []string{k.number} }
func (*sshKey) revoked() bool       { return false }

func (k *sshKey) join(other Key) (Key, error) {
	o, ok := other.(*sshKey)
	if !ok {
		return nil, distrust("remove one of them", "two different keys have the id %s", k.ID())
	}
	return &sshKey{k.PublicKey, k.number, append(slices.Clip(k.grants), o.grants...)}, nil
}

func (sshScheme) recognizes(text []byte) bool {
	return regexp.MustCompile(`(?m)(^|[ \t])(ssh-|ecdsa-sha2-|sk-(ssh|ecdsa)-)[A-Za-z0-9@.-]+([ \t]+AAAA|[ \t]*$)`).Match(text)
}

func (sshScheme) parse(text []byte) ([]Key, error) {
	var keys []Key
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := parseSSH(line)
		if err != nil {
			hint := "write keys as in a .pub file of ssh-keygen, or as in an allowed-signers file, see ssh-keygen(1)"
			if !strings.ContainsAny(line, " \t") {
				hint = `put quotes around the whole key: Key="ssh-ed25519 AAAA…"`
			}
			return nil, distrust(hint, "holds no SSH key in line %d: %w", n, err)
		}
		if keys = append(keys, key); len(keys) > KeysMax {
			break
		}
	}
	return keys, nil
}

// parseSSH reads a line: TYPE KEY [COMMENT], or PRINCIPALS [OPTIONS] TYPE KEY
// [COMMENT].
func parseSSH(line string) (Key, error) {
	var g grant
	public, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 {
		principals, rest := cutPrincipals(line)
		if principals == "cert-authority" {
			return nil, errCertAuthority
		}
		if public, _, options, _, err = ssh.ParseAuthorizedKey([]byte(rest)); err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "ssh: "))
		}
		if g, err = parseGrant(options); err != nil {
			return nil, err
		}
	}
	n, err := sshNumber(public)
	if err != nil {
		return nil, err
	}
	return &sshKey{public, n, []grant{g}}, nil
}

// sshNumber refuses weak keys, certificates, and kinds that are not known here.
func sshNumber(public ssh.PublicKey) (string, error) {
	switch public.Type() {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		// The number inside is of use with its application only.
		return fmt.Sprintf("sk:%x", public.Marshal()), nil
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA:
	default:
		return "", fmt.Errorf("keys of the type %s are not taken", public.Type())
	}
	k, ok := public.(ssh.CryptoPublicKey)
	if !ok {
		return "", fmt.Errorf("keys of the type %s are not taken", public.Type())
	}
	return number(k.CryptoPublicKey())
}

func (s sshScheme) signers(d document, file string, content []byte, keys []Key) ([]signing, error) {
	signatures, err := s.read(content)
	if err != nil {
		return nil, unreadable(s, d, file, err.Error())
	}
	var signers []signing
	var problem error
	for _, sig := range signatures {
		k, err := s.signer(d, file, sig, keys)
		switch {
		case err == nil:
			signers = append(signers, signing{Key: k}) // the format has no time
		case problem == nil:
			problem = err
		}
	}
	return signers, problem
}

const (
	sshBegin = "-----BEGIN " + sshsig.PEMType + "-----\n"
	sshEnd   = "\n-----END " + sshsig.PEMType + "-----"
)

// read takes a file apart: blocks of armour and nothing between them. Each has to
// be what it would be if it were written anew, but for the width of its lines.
func (sshScheme) read(content []byte) ([]*sshsig.Signature, error) {
	var signatures []*sshsig.Signature
	rest := strings.ReplaceAll(string(content), "\r\n", "\n")
	for rest != "" {
		after, ok := strings.CutPrefix(rest, sshBegin)
		body, after, closed := strings.Cut(after, sshEnd)
		switch {
		case !ok || !closed || after != "" && after[0] != '\n':
			return nil, errors.New("its armour is broken")
		case len(signatures) == signaturesMax:
			return nil, fmt.Errorf("more than %d signatures", signaturesMax)
		}
		rest = strings.TrimPrefix(after, "\n")
		raw, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(body, "\n", ""))
		if err != nil {
			return nil, errors.New("its armour is damaged")
		}
		sig, err := sshsig.ParseSignature(raw)
		if err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "ssh: "))
		}
		if !bytes.Equal(sig.Marshal(), raw) {
			return nil, errors.New("a signature is written in an odd way")
		}
		signatures = append(signatures, sig)
	}
	return signatures, nil
}

// signer tells whose signature it is, if it counts now.
func (s sshScheme) signer(d document, file string, sig *sshsig.Signature, keys []Key) (Key, error) {
	id := ssh.FingerprintSHA256(sig.PublicKey)
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID() == id })
	if i < 0 {
		return nil, stranger(d, id, keys)
	}
	k, ok := keys[i].(*sshKey)
	if !ok {
		return nil, stranger(d, id, keys)
	}
	if sig.Namespace != Namespace {
		return nil, fault.New(fault.SigNamespace, fmt.Errorf("%s by key %s was made for the namespace %q, want %q", file, id, sig.Namespace, Namespace),
			"sign it: "+s.command(d.name))
	}
	if !slices.Contains(sshFormats(k.Type()), sig.Signature.Format) {
		return nil, fault.New(fault.SigWeak, fmt.Errorf("%s by key %s is of the kind %q", file, id, sig.Signature.Format), "sign with an OpenSSH of today")
	}
	if err := sshsig.Verify(bytes.NewReader(d.raw), sig, k.PublicKey, sig.HashAlgorithm, Namespace); err != nil {
		return nil, forged(d, file, id)
	}
	var no *fault.Error
	if errors.As(k.allowed(d.now), &no) {
		no.Err = fmt.Errorf("%s by key %s: %w", file, id, no.Err)
		return nil, no
	}
	return k, nil
}

// sshFormats are the kinds of signature that a key makes; RSA with SHA-1 is none.
func sshFormats(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	}
	return []string{keyType}
}
