package client

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"weak"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// caFileMax is four times the bundle of all authorities Debian trusts.
const caFileMax = 1 << 20

// loadRoots gives nil, the system's authorities, where no file is named.
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	const hint = "CAFile= takes the absolute name of a file of PEM certificates"
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.ConfigSource, err, hint)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, caFileMax+1))
	if err != nil {
		return nil, fault.New(fault.ConfigSource, err, hint)
	}
	if len(pem) > caFileMax {
		return nil, fault.New(fault.ConfigSource, fmt.Errorf("%s is larger than %d bytes", file, caFileMax), hint)
	}
	roots := shared.with(pem)
	if roots == nil {
		return nil, fault.New(fault.ConfigSource, fmt.Errorf("%s holds no PEM certificate", file), hint)
	}
	return roots, nil
}

// rootsInUse are pools by what the file held: clients that trust the same share
// one, which takes some 30 KiB.
type rootsInUse struct {
	mu    sync.Mutex
	pools map[[sha256.Size]byte]weak.Pointer[x509.CertPool]
}

var shared = rootsInUse{pools: map[[sha256.Size]byte]weak.Pointer[x509.CertPool]{}}

// with gives the system's authorities and those of pem, nil if it holds none.
// Nobody may add to them.
func (u *rootsInUse) with(pem []byte) *x509.CertPool {
	sum := sha256.Sum256(pem)
	u.mu.Lock()
	defer u.mu.Unlock()
	if roots := u.pools[sum].Value(); roots != nil {
		return roots
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil
	}
	u.pools[sum] = weak.Make(roots)
	runtime.AddCleanup(roots, u.forget, sum)
	return roots
}

// forget drops a pool that is gone, unless there is another one by now.
func (u *rootsInUse) forget(sum [sha256.Size]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pools[sum].Value() == nil {
		delete(u.pools, sum)
	}
}
