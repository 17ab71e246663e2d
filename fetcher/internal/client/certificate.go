package client

import (
	"crypto/tls"
	"net/http"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
)

// showing is config with a certificate of this host for whoever asks for one. A
// session that is taken up again would be that of the certificate it began with,
// so each begins anew.
func showing(c credential.Certificate, config *tls.Config) *tls.Config {
	config = config.Clone()
	config.ClientSessionCache = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := c.Load()
		if err != nil {
			return nil, err
		}
		if err := credential.Expired(pair, time.Now()); err != nil {
			return nil, fault.Passing(fault.TLS, err, "put a new one into CertificateFile=, or check this host's clock")
		}
		return pair, nil
	}
	return config
}

// doors has one transport for the home and one for wherever that redirects: who
// this host is, is the home's business alone.
type doors struct {
	host            string
	home, elsewhere *http.Transport
}

// RoundTrip is that of http.RoundTripper.
func (d *doors) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Hostname() == d.host {
		return d.home.RoundTrip(r)
	}
	return d.elsewhere.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (d *doors) CloseIdleConnections() {
	d.home.CloseIdleConnections()
	d.elsewhere.CloseIdleConnections()
}
