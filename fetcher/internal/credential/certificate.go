package credential

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// CertificateMax bounds a file of certificates or of a key, in bytes.
const CertificateMax = 1 << 20

// Certificate is what this host shows of itself in TLS. The zero value is nothing.
type Certificate struct {
	// File is the absolute name of a file of PEM certificates: the host's, and
	// then those that lead from it to an authority that the server knows.
	File string
	// KeyFile is the absolute name of a file with the private key, in PEM.
	KeyFile string
}

// Given tells whether there is anything to show.
func (c Certificate) Given() bool { return c != Certificate{} }

// Load reads both files. They may be replaced one after the other, so what does
// not fit together now may do so later.
func (c Certificate) Load() (*tls.Certificate, error) {
	const hint = "CertificateFile= and PrivateKeyFile= take absolute names of PEM files that the daemon can read; see docs/sources.md"
	bad := func(format string, a ...any) (*tls.Certificate, error) {
		return nil, fault.New(fault.ConfigSource, fmt.Errorf(format, a...), hint)
	}
	switch {
	case c.KeyFile == "":
		return bad("CertificateFile= is given without PrivateKeyFile=")
	case c.File == "":
		return bad("PrivateKeyFile= is given without CertificateFile=")
	}
	chain, err := read(c.File, CertificateMax)
	if err != nil {
		return bad("CertificateFile= %w", err)
	}
	key, err := read(c.KeyFile, CertificateMax)
	if err != nil {
		return bad("PrivateKeyFile= %w", err)
	}
	pair, err := ParsePair(chain, key)
	if err != nil {
		return bad("CertificateFile=%s: %w", c.File, err)
	}
	return pair, nil
}

// ParsePair reads what the two files hold. Its error quotes none of it.
func ParsePair(chain, key []byte) (*tls.Certificate, error) {
	switch {
	case max(len(chain), len(key)) > CertificateMax:
		return nil, fmt.Errorf("a file has more than %d bytes", CertificateMax)
	case !bytes.Contains(chain, []byte("-----BEGIN CERTIFICATE-----")):
		return nil, errors.New("there is no PEM certificate in it")
	case bytes.Contains(key, []byte("ENCRYPTED")):
		return nil, errors.New("the private key is encrypted, and nobody is there to type its password")
	case !bytes.Contains(key, []byte("PRIVATE KEY-----")):
		return nil, errors.New("there is no PEM private key in PrivateKeyFile=")
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		// Nothing but names of fields and algorithms is in these errors.
		return nil, fmt.Errorf("certificate and private key: %w", err)
	}
	return &pair, nil
}

// Expired tells why a certificate is of no use at a time, nil where it is of use.
func Expired(c *tls.Certificate, now time.Time) error {
	switch leaf := c.Leaf; {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate of %q ended at %s UTC", leaf.Subject, leaf.NotAfter.UTC().Format(time.DateTime))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate of %q counts from %s UTC on", leaf.Subject, leaf.NotBefore.UTC().Format(time.DateTime))
	}
	return nil
}
