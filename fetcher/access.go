package fetcher

import (
	"time"

	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/s3"
)

// SecretMax bounds what TokenFile and LoginFile hold, in bytes.
const SecretMax = credential.Max

// CheckToken tells whether raw can be what TokenFile holds. No error of it or of
// CheckLogin quotes any of raw.
func CheckToken(raw []byte) error {
	_, err := credential.ParseToken(raw)
	return err
}

// CheckLogin tells whether raw can be what LoginFile holds.
func CheckLogin(raw []byte) error {
	_, _, err := credential.ParseLogin(raw)
	return err
}

// CertificateMax bounds what CertificateFile and PrivateKeyFile hold, in bytes.
const CertificateMax = credential.CertificateMax

// CheckCertificate tells whether chain and key can be what CertificateFile and
// PrivateKeyFile hold, and from when until when they are of use. Its error quotes
// neither.
func CheckCertificate(chain, key []byte) (from, until time.Time, err error) {
	pair, err := credential.ParsePair(chain, key)
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	return pair.Leaf.NotBefore, pair.Leaf.NotAfter, nil
}

// CheckCredentials tells whether raw can be what CredentialFile holds.
func CheckCredentials(raw []byte) error { return s3.CheckKeys(raw) }

// access is what the options have to show to a server.
func access(o Options) credential.Access {
	return credential.Access{TokenFile: o.TokenFile, LoginFile: o.LoginFile}
}
