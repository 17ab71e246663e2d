package signature

import (
	"bytes"
	"testing"

	"aead.dev/minisign"
)

// BenchmarkCount is the cost of a look at a source: a list of 100 lines that has
// one signature. It grows with the list by one hash of it, two with OpenPGP.
func BenchmarkCount(b *testing.B) {
	list := bytes.Repeat(manifest, 50)
	d := newGPG(b)
	d.write(manifestName, list)
	d.key("ed25519", "ed25519", "never")
	d.key("rsa", "rsa3072", "never")
	public, private := newMinisign(b)
	for _, c := range []struct {
		name, key, file string
		signature       []byte
	}{
		{"minisign", public.String(), minisig, minisign.Sign(private, list)},
		{"OpenPGP Ed25519", d.export("ed25519"), gpgFile, d.sign("-u", "ed25519")},
		{"OpenPGP RSA", d.export("rsa"), gpgFile, d.sign("-u", "rsa")},
		{"SSH", d.sshKeygen("bob", "-t", "ed25519"), sshFile, d.sshSign("bob", Namespace)},
	} {
		b.Run(c.name, func(b *testing.B) {
			ring := ringOf(b, 1, c.key)
			for b.Loop() {
				if _, err := count(ring, list, c.file, c.signature); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
