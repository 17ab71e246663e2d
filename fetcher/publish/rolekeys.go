package publish

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RoleKeys are the secret keys of a repository's roles, an Ed25519 key each.
type RoleKeys map[string]ed25519.PrivateKey

func roles() []string {
	return []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}
}

// MakeRoleKeys writes a new key for each role into dir, which it makes: ROLE.pem,
// in PKCS #8, for nobody else to read.
func MakeRoleKeys(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, role := range roles() {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, role+".pem"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err == nil {
			err = f.Sync()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// LoadRoleKeys reads the keys that are in dir. A role without one cannot be signed.
func LoadRoleKeys(dir string) (RoleKeys, error) {
	keys := RoleKeys{}
	for _, role := range roles() {
		name := filepath.Join(dir, role+".pem")
		raw, err := readSmall(name, 4<<10)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(raw)
		if block == nil || block.Type != "PRIVATE KEY" {
			return nil, fmt.Errorf("%s holds no private key in PEM", name)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		private, ok := parsed.(ed25519.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("%s holds a key of another kind, want Ed25519", name)
		}
		keys[role] = private
	}
	if len(keys) == 0 {
		return nil, &advised{fmt.Errorf("%s holds none of root.pem, targets.pem, snapshot.pem and timestamp.pem", dir), "make them: upgraderd keygen --tuf " + dir}
	}
	return keys, nil
}

func (k RoleKeys) has(role string) bool { return k[role] != nil }

func (k RoleKeys) signer(role string) (signature.Signer, error) {
	if !k.has(role) {
		return nil, fmt.Errorf("%s.pem is missing, and the %s role has to be signed", role, role)
	}
	return signature.LoadSigner(k[role], crypto.Hash(0))
}

func (k RoleKeys) public(role string) (*metadata.Key, error) {
	if !k.has(role) {
		return nil, fmt.Errorf("%s.pem is missing, and a new repository needs a key for each role", role)
	}
	return metadata.KeyFromPublicKey(k[role].Public())
}

// keep tells whether root has each of these keys sign for its role.
func (k RoleKeys) keep(root *metadata.Metadata[metadata.RootType]) error {
	for role := range k {
		key, err := k.public(role)
		if err != nil {
			return err
		}
		id, err := key.ID()
		if err != nil {
			return err
		}
		if named := root.Signed.Roles[role]; named == nil || !slices.Contains(named.KeyIDs, id) {
			return fmt.Errorf("its root does not have %s.pem sign for the %s role: is this another repository's key?", role, role)
		}
	}
	return nil
}
