package signature

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgpecdsa "github.com/ProtonMail/go-crypto/openpgp/ecdsa"
	openpgped25519 "github.com/ProtonMail/go-crypto/openpgp/ed25519"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	openpgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// openPGPScheme is OpenPGP, as gpg(1) signs and systemd-sysupdate publishes: a
// detached signature over bytes, binary or armoured; a file may hold several, one
// behind the other.
type openPGPScheme struct{}

func (openPGPScheme) String() string { return "OpenPGP" }

func (openPGPScheme) files(of string, _ []Key) (usual, more []string) {
	return []string{of + ".gpg", of + ".asc"}, nil
}

func (openPGPScheme) command(of string) string {
	return "gpg --detach-sign --output " + of + ".gpg " + of
}

// packetsMax bounds a keyring: each certification of a key is a packet.
const packetsMax = 16384

const (
	tagSignature    = 2
	tagSecretKey    = 5
	tagPublicKey    = 6
	tagSecretSubkey = 7
)

const (
	armouredKey       = "PGP PUBLIC KEY BLOCK"
	armouredSignature = "PGP SIGNATURE"
)

// openPGPKey is a primary key with what belongs to it. It is kept as packets and
// read anew for each use: the library notes in what it has read whether a
// signature held at the time when it was first asked.
type openPGPKey struct {
	packets   []byte
	keyIDs    []uint64 // of the primary key and of all subkeys
	id        string
	public    []string // numbers of the primary key and of the subkeys that can sign
	withdrawn bool
}

func (k *openPGPKey) ID() string        { return k.id }
func (*openPGPKey) scheme() scheme      { return openPGPScheme{} }
func (k *openPGPKey) numbers() []string { return k.public }
func (k *openPGPKey) revoked() bool     { return k.withdrawn }

// join refuses two states of one key. To take one of them could be to overlook
// that the other one says it is revoked.
func (k *openPGPKey) join(other Key) (Key, error) {
	if o, ok := other.(*openPGPKey); !ok || !bytes.Equal(o.packets, k.packets) {
		return nil, distrust("remove the older one", "the OpenPGP key %s is there twice, in two states", k.id)
	}
	return k, nil
}

// recognizes goes by the armour, or by a first byte that begins a packet and no
// text.
func (openPGPScheme) recognizes(text []byte) bool {
	return bytes.Contains(text, []byte("-----BEGIN "+armouredKey)) || len(text) > 0 && text[0]&0x80 != 0
}

func (openPGPScheme) parse(text []byte) ([]Key, error) {
	const hint = "export the publisher's key: gpg --export KEY > FILE"
	raw, err := dearmour(text, armouredKey)
	if err != nil {
		return nil, distrust(hint, "is no OpenPGP keyring: %w", err)
	}
	chunks, err := splitKeyring(raw)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, chunk := range chunks {
		k, err := parseOpenPGP(chunk)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// splitKeyring gives the packets of each key.
func splitKeyring(raw []byte) ([][]byte, error) {
	const hint = "export the publisher's key: gpg --export KEY > FILE"
	var chunks [][]byte
	packets := packet.NewOpaqueReader(bytes.NewReader(raw))
	for n := 0; ; n++ {
		p, err := packets.Next()
		switch {
		case errors.Is(err, io.EOF) && len(chunks) > 0:
			return chunks, nil
		case err != nil:
			return nil, distrust(hint, "is no OpenPGP keyring: %w", err)
		case p.Tag == tagSecretKey || p.Tag == tagSecretSubkey:
			return nil, secret()
		case n == packetsMax:
			return nil, distrust("gpg --export-options export-minimal makes it smaller", "holds more than %d packets", packetsMax)
		case p.Tag == tagPublicKey && len(chunks) == KeysMax:
			return nil, distrust("", "holds more than %d keys", KeysMax)
		case p.Tag == tagPublicKey:
			chunks = append(chunks, nil)
		case len(chunks) == 0:
			return nil, distrust(hint, "is no OpenPGP keyring: it does not begin with a public key")
		}
		var b bytes.Buffer
		if err := p.Serialize(&b); err != nil {
			return nil, distrust(hint, "is no OpenPGP keyring: %w", err)
		}
		chunks[len(chunks)-1] = append(chunks[len(chunks)-1], b.Bytes()...)
	}
}

// parseOpenPGP takes one key unless it is too weak to trust. One that is revoked
// or has expired is taken, so that it can be told when it signs.
func parseOpenPGP(packets []byte) (Key, error) {
	k := &openPGPKey{packets: packets}
	e, err := k.read()
	if err != nil {
		return nil, distrust("", "holds an OpenPGP key that cannot be read: %w", err)
	}
	k.id = fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)
	n, err := openPGPNumber(e.PrimaryKey)
	if err != nil {
		return nil, distrust("have the publisher make a new key", "holds the OpenPGP key %s, which is too weak: %w", k.id, err)
	}
	k.keyIDs, k.public, k.withdrawn = []uint64{e.PrimaryKey.KeyId}, []string{n}, revoked(e)
	for _, s := range e.Subkeys {
		k.keyIDs = append(k.keyIDs, s.PublicKey.KeyId)
		if n, err := openPGPNumber(s.PublicKey); err == nil {
			k.public = append(k.public, n)
		}
	}
	if k.withdrawn {
		return k, nil
	}
	if _, err := e.PrimarySelfSignature(time.Time{}, policy(time.Time{})); err != nil {
		return nil, distrust("have the publisher certify it anew, with SHA-256: gpg --cert-digest-algo SHA256 --quick-set-expire KEY 2y",
			"holds the OpenPGP key %s without a certification that counts (SHA-1 does not)", k.id)
	}
	return k, nil
}

func (k *openPGPKey) read() (*openpgp.Entity, error) {
	return openpgp.ReadEntity(packet.NewReader(bytes.NewReader(k.packets)))
}

// openPGPNumber refuses weak keys, and those that cannot sign.
func openPGPNumber(pk *packet.PublicKey) (string, error) {
	if pk.Version != 4 && pk.Version != 6 {
		return "", fmt.Errorf("version %d", pk.Version)
	}
	switch key := pk.PublicKey.(type) {
	case *eddsa.PublicKey:
		if curve, err := pk.Curve(); err == nil && curve == packet.Curve25519 {
			return number(ed25519.PublicKey(key.X))
		}
		return "eddsa:" + fmt.Sprintf("%x", key.X), nil // Ed448
	case *openpgped25519.PublicKey:
		return number(ed25519.PublicKey(key.Point))
	case *openpgpecdsa.PublicKey:
		if curve, err := pk.Curve(); err != nil || curve == packet.CurveSecP256k1 {
			return "", fmt.Errorf("ECDSA on the curve %s", curve)
		}
		return fmt.Sprintf("ecdsa:%x", key.MarshalPoint()), nil
	}
	if pk.PubKeyAlgo == packet.PubKeyAlgoRSA || pk.PubKeyAlgo == packet.PubKeyAlgoRSASignOnly {
		return number(pk.PublicKey)
	}
	return "", fmt.Errorf("algorithm %d (1 is RSA, 17 DSA) is not taken", pk.PubKeyAlgo)
}

// policy is what is asked of every signature of a key over itself: no SHA-1.
func policy(now time.Time) *packet.Config {
	weak := map[crypto.Hash]bool{crypto.MD5: true, crypto.SHA1: true, crypto.RIPEMD160: true, crypto.SHA224: true}
	return &packet.Config{
		Time: func() time.Time { return now }, MinRSABits: rsaBitsMin,
		RejectHashAlgorithms: weak,
	}
}

// revoked tells that the owner has taken the key back, for whatever reason and
// whenever: who has the secret key of one that was only "retired" can date a
// signature back.
func revoked(e *openpgp.Entity) bool {
	return slices.ContainsFunc(e.Revocations, func(r *packet.VerifiableSignature) bool {
		return e.PrimaryKey.VerifyRevocationSignature(r.Packet) == nil
	})
}

func subkeyRevoked(s *openpgp.Subkey) bool {
	return slices.ContainsFunc(s.Revocations, func(r *packet.VerifiableSignature) bool {
		return s.Primary.PrimaryKey.VerifySubkeyRevocationSignature(r.Packet, s.PublicKey) == nil
	})
}

func (o openPGPScheme) signers(d document, file string, content []byte, keys []Key) ([]signing, error) {
	signatures, err := o.read(content)
	if err != nil {
		return nil, unreadable(o, d, file, err.Error())
	}
	var signers []signing
	var problem error
	for _, s := range signatures {
		k, err := o.signer(d, file, s, keys)
		switch {
		case err == nil:
			signers = append(signers, signing{k, s.CreationTime.UTC()})
		case problem == nil:
			problem = err
		}
	}
	return signers, problem
}

// openPGPSignature is one packet of a file.
type openPGPSignature struct {
	*packet.Signature
	packet []byte
}

// read takes a file apart. It wants nothing in it but signatures over bytes, each
// as the library would write it.
func (openPGPScheme) read(content []byte) ([]openPGPSignature, error) {
	raw, err := dearmour(content, armouredSignature)
	if err != nil {
		return nil, err
	}
	var signatures []openPGPSignature
	packets := packet.NewOpaqueReader(bytes.NewReader(raw))
	for {
		p, err := packets.Next()
		switch {
		case errors.Is(err, io.EOF) && len(signatures) > 0:
			return signatures, nil
		case err != nil:
			return nil, fmt.Errorf("a packet cannot be read: %w", err)
		case p.Tag != tagSignature:
			return nil, fmt.Errorf("a packet is no signature (tag %d)", p.Tag)
		case len(signatures) == signaturesMax:
			return nil, fmt.Errorf("more than %d signatures", signaturesMax)
		}
		parsed, err := p.Parse()
		if err != nil {
			return nil, fmt.Errorf("a signature cannot be read: %w", err)
		}
		sig, ok := parsed.(*packet.Signature)
		if !ok || sig.Version != 4 && sig.Version != 6 {
			return nil, errors.New("a signature is of another version")
		}
		if err := canonicalOpenPGP(sig, p.Contents); err != nil {
			return nil, err
		}
		var own bytes.Buffer
		if err := p.Serialize(&own); err != nil {
			return nil, err
		}
		signatures = append(signatures, openPGPSignature{sig, own.Bytes()})
	}
}

// canonicalOpenPGP refuses what a signature does not cover, except who issued
// it: that has to be right to find the key.
func canonicalOpenPGP(sig *packet.Signature, contents []byte) error {
	var again bytes.Buffer
	if err := sig.Serialize(&again); err != nil {
		return err
	}
	p, err := packet.NewOpaqueReader(&again).Next()
	if err != nil || !bytes.Equal(p.Contents, contents) {
		return errors.New("a signature is written in an odd way")
	}
	if sig.IssuerKeyId == nil {
		return errors.New("a signature does not say whose it is")
	}
	for _, n := range []interface {
		Bytes() []byte
		BitLength() uint16
	}{sig.RSASignature, sig.ECDSASigR, sig.ECDSASigS, sig.EdDSASigR, sig.EdDSASigS} {
		if n != nil && len(n.Bytes()) > 0 && int(n.BitLength()) != 8*(len(n.Bytes())-1)+bits.Len8(n.Bytes()[0]) {
			return errors.New("a signature has a number of another length than it says")
		}
	}
	unhashed, err := unhashedSubpackets(sig, contents)
	if err != nil {
		return err
	}
	for _, u := range unhashed {
		issuer := fmt.Sprintf("%016x", *sig.IssuerKeyId)
		switch got := fmt.Sprintf("%x", u.Contents); {
		case u.SubType == 16 && got == issuer:
		case u.SubType == 33 && len(sig.IssuerFingerprint) > 0 && got == fmt.Sprintf("%02x%x", sig.IssuerKeyVersion, sig.IssuerFingerprint):
		default:
			return errors.New("a signature has something added to it that is not signed")
		}
	}
	return nil
}

// unhashedSubpackets are the part of a signature that it does not cover: RFC 9580,
// section 5.2.3.
func unhashedSubpackets(sig *packet.Signature, contents []byte) ([]*packet.OpaqueSubpacket, error) {
	wide := 2 // bytes of a length
	if sig.Version == 6 {
		wide = 4
	}
	rest := contents[4:] // version, type, two algorithms
	for i := range 2 {
		n := 0
		for _, b := range rest[:wide] {
			n = n<<8 | int(b)
		}
		area := rest[wide : wide+n] // the library has parsed it, so it is there
		if rest = rest[wide+n:]; i == 1 {
			return packet.OpaqueSubpackets(area)
		}
	}
	return nil, nil
}

// signer tells whose signature it is, if it counts now.
func (o openPGPScheme) signer(d document, file string, s openPGPSignature, keys []Key) (Key, error) {
	for _, k := range keys {
		k, ok := k.(*openPGPKey)
		if !ok || !slices.Contains(k.keyIDs, *s.IssuerKeyId) {
			continue
		}
		e, err := k.read()
		if err != nil {
			return nil, err // it was read before
		}
		if pk, sub := issuer(e, s.Signature); pk != nil {
			return k, o.judge(d, file, s, k, e, pk, sub)
		}
	}
	id := fmt.Sprintf("%016X", *s.IssuerKeyId)
	if len(s.IssuerFingerprint) > 0 {
		id = fmt.Sprintf("%X", s.IssuerFingerprint)
	}
	return nil, stranger(d, id, keys)
}

// issuer finds the key that a signature names, the primary one or a subkey: by its
// fingerprint and by its id, where it has both.
func issuer(e *openpgp.Entity, sig *packet.Signature) (*packet.PublicKey, *openpgp.Subkey) {
	named := func(pk *packet.PublicKey) bool {
		return sig.CheckKeyIdOrFingerprint(pk) && *sig.IssuerKeyId == pk.KeyId
	}
	if named(e.PrimaryKey) {
		return e.PrimaryKey, nil
	}
	for i := range e.Subkeys {
		if named(e.Subkeys[i].PublicKey) {
			return e.Subkeys[i].PublicKey, &e.Subkeys[i]
		}
	}
	return nil, nil
}

// judge asks first whether the signature is of these bytes, then whether the key
// may sign today. The day that the signature names is of no use for that: whoever
// has the secret key of one that expired can date a signature back. Nor does it
// have to be after the newest certification of the key, which its owner makes anew
// to extend it.
func (o openPGPScheme) judge(d document, file string, s openPGPSignature, k *openPGPKey, e *openpgp.Entity, pk *packet.PublicKey, sub *openpgp.Subkey) error {
	weak := func(format string, a ...any) error {
		return fault.New(fault.SigWeak, fmt.Errorf("%s by key %s: %w", file, k.id, fmt.Errorf(format, a...)), "sign with a key made by a gpg of today, and with SHA-256 or better")
	}
	expired := func(format string, a ...any) error {
		return fault.New(fault.SigExpired, fmt.Errorf("%s by key %s: %w", file, k.id, fmt.Errorf(format, a...)),
			"have the publisher extend the key (gpg --quick-set-expire) and put the new export in place of the old one, or sign anew")
	}
	withdrawn := func(what string) error {
		return fault.New(fault.SigRevoked, fmt.Errorf("%s is signed by the revoked %s of %s", d.name, what, k.id),
			"sign with another trusted key; if nobody of yours did this, somebody has the revoked key")
	}
	if s.SigType != packet.SigTypeBinary {
		return unreadable(o, d, file, fmt.Sprintf("it is over text (type %#02x), not over bytes", int(s.SigType)))
	}
	if !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}, s.Hash) {
		return weak("made with %s, which can be forged", s.Hash)
	}
	if _, err := openPGPNumber(pk); err != nil {
		return weak("made by a key that is too weak: %w", err)
	}
	if !holds(d.raw, s.Signature, pk) {
		return forged(d, file, k.id)
	}
	if revoked(e) {
		return withdrawn("key")
	}
	if sub != nil && subkeyRevoked(sub) {
		return withdrawn("subkey " + pk.KeyIdString())
	}
	if s.CreationTime.After(d.now) {
		return fault.Passing(fault.SigExpired, fmt.Errorf("%s by key %s: it was made at %s, which is still to come", file, k.id, stamp(s.CreationTime)), "compare the clocks of this host and of the publisher's")
	}
	if s.CreationTime.Before(pk.CreationTime) {
		return expired("it was made before the key was")
	}
	if s.SigExpired(d.now) {
		return expired("it has expired")
	}
	if slices.ContainsFunc(s.Notations, func(n *packet.Notation) bool { return n.IsCritical }) {
		return weak("it has a critical notation, whose meaning is not known here")
	}
	self, err := e.VerifyPrimaryKey(d.now, policy(d.now))
	if err == nil && sub != nil {
		self, err = sub.Verify(d.now, policy(d.now))
	}
	switch {
	case errors.Is(err, openpgperrors.ErrKeyExpired) && sub == nil:
		return expired("the key has expired")
	case errors.Is(err, openpgperrors.ErrKeyExpired):
		return expired("the key, or its subkey %s, has expired", pk.KeyIdString())
	case err != nil:
		return weak("%w", err)
	case !self.FlagsValid || !self.FlagSign:
		return weak("%s is not a key for signing", pk.KeyIdString())
	}
	return nil
}

// holds is the mathematics alone. The two bytes of the hash that stand in the
// signature count as well.
func holds(raw []byte, sig *packet.Signature, pk *packet.PublicKey) bool {
	tagged, err := sig.PrepareVerify()
	if err != nil {
		return false
	}
	signed, err := sig.PrepareVerify()
	if err != nil {
		return false
	}
	tagged.Write(raw)
	signed.Write(raw)
	return packet.VerifyHashTag(tagged, sig) == nil && pk.VerifySignature(signed, sig) == nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// dearmour gives the packets of a file, which is binary or holds blocks of
// armour. Of the armour everything counts but the comments in its headers. Around
// the blocks of a keyring may be text, as gpg writes it with --with-key-data or
// people by hand; around signatures may not.
func dearmour(content []byte, kind string) ([]byte, error) {
	begin, end := []byte("-----BEGIN "+kind+"-----"), []byte("-----END "+kind+"-----")
	if !bytes.Contains(content, []byte("-----BEGIN ")) {
		if content[0]&0x80 == 0 {
			return nil, errors.New("it is neither binary nor armoured")
		}
		return content, nil
	}
	var raw []byte
	rest := bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	for blocks := 0; len(bytes.TrimSpace(rest)) > 0; blocks++ {
		from, to := bytes.Index(rest, begin), bytes.Index(rest, end)
		if from < 0 && kind == armouredKey && blocks > 0 {
			break
		}
		if from < 0 || to < from || kind == armouredSignature && len(bytes.Trim(rest[:from], "\n")) > 0 {
			return nil, errors.New("its armour is broken")
		}
		block := rest[from : to+len(end)]
		rest = rest[to+len(end):]
		got, err := dearmourBlock(block)
		if err != nil {
			return nil, err
		}
		if raw = append(raw, got...); blocks == KeysMax {
			return nil, errors.New("it has too many blocks of armour")
		}
	}
	return raw, nil
}

// dearmourBlock compares the block with what the library would write, but for
// headers and the width of lines.
func dearmourBlock(block []byte) ([]byte, error) {
	b, err := armor.Decode(bytes.NewReader(block))
	if err != nil {
		return nil, fmt.Errorf("its armour cannot be read: %w", err)
	}
	raw, err := io.ReadAll(b.Body)
	if err != nil || len(raw) == 0 {
		return nil, errors.New("its armour cannot be read")
	}
	_, body, _ := strings.Cut(string(block), "\n\n")
	body = strings.ReplaceAll(body, "\n", "")
	for _, checksum := range []bool{true, false} {
		var again bytes.Buffer
		w, err := armor.EncodeWithChecksumOption(&again, b.Type, nil, checksum)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(raw); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		_, own, _ := strings.Cut(again.String(), "\n\n")
		if body == strings.ReplaceAll(own, "\n", "") {
			return raw, nil
		}
	}
	return nil, errors.New("its armour is damaged")
}
