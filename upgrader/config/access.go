package config

import (
	"fmt"
	"os"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

// secret is the name of a file that holds one, judged by check, whose errors do
// not quote it.
func secret(field func(*upgrader.Target) *string, check func(raw []byte) error) setter {
	return func(s scope, t *upgrader.Target, value string) error {
		v, err := s.expand(value)
		if err != nil {
			return err
		}
		if v, err = absolute(v); err != nil {
			return err
		}
		*field(t) = v
		if s.peek {
			return nil
		}
		raw, err := s.readTrusted(v, fetcher.SecretMax)
		if err != nil {
			return err
		}
		if err := check([]byte(raw)); err != nil {
			return refuse("put the secret there, and nothing else", "%s %w", unitfile.Quote(v), err)
		}
		return nil
	}
}

// crossAccess judges how secrets are kept, and where they go.
func (r *reading) crossAccess() {
	src := &r.target.Source
	if src.TokenFile != "" && src.LoginFile != "" {
		r.report(r.where("Source", "LoginFile"), Diagnostic{
			Code: CodeConflict, Message: "LoginFile= and TokenFile= are both given, and a request has room for one",
			Hint: "remove one of them",
		})
	}
	for _, key := range []struct{ name, file string }{
		{"TokenFile", src.TokenFile}, {"LoginFile", src.LoginFile}, {"CertificateFile", src.CertificateFile}, {"PrivateKeyFile", src.PrivateKeyFile},
		{"CredentialFile", src.CredentialFile},
	} {
		if key.file == "" {
			continue
		}
		warn := func(code Code, hint, format string, a ...any) {
			r.report(r.where("Source", key.name), Diagnostic{
				Code: code, Warning: true, Message: key.name + "= " + fmt.Sprintf(format, a...), Hint: hint,
			})
		}
		login := key.name == "TokenFile" || key.name == "LoginFile"
		switch carrier := transport(*src); {
		case src.Path == "": // which has a diagnostic of its own
		case carrier == "":
			warn(CodeConflict, "", "has no effect: the source is a directory")
		case carrier == "http" && login:
			warn(CodeTrust, "use https://", "goes over http://, where everybody on the way can read it")
		case carrier == "http" && key.name != "CredentialFile": // which signs, and is not sent
			warn(CodeConflict, "", "has no effect: the source is not https://")
		}
		if key.name != "CertificateFile" && !r.peek && r.open(key.file) {
			warn(CodeTrust, "chmod o-r "+printable(key.file)+", and change what it holds", "names %s, which everybody can read", unitfile.Quote(key.file))
		}
	}
	r.crossCertificate()
}

// open tells a file that everybody can read.
func (r *reading) open(name string) bool {
	to, err := r.tree.follow(name)
	if err != nil {
		return false
	}
	st, err := os.Stat(r.tree.real(to))
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o004 != 0
}

// crossCertificate looks at certificate and key together.
func (r *reading) crossCertificate() {
	src := &r.target.Source
	certificate, key := len(r.given["Source.CertificateFile"]) > 0, len(r.given["Source.PrivateKeyFile"]) > 0
	switch {
	case certificate != key && !r.torn:
		given, missing := "CertificateFile", "PrivateKeyFile"
		if key {
			given, missing = missing, given
		}
		r.report(r.where("Source", given), Diagnostic{
			Code: CodeConflict, Message: fmt.Sprintf("%s= is given without %s=", given, missing), Hint: "set " + missing + "=, too",
		})
		return
	case r.peek || src.CertificateFile == "" || src.PrivateKeyFile == "":
		return
	}
	chain, err := r.readTrusted(src.CertificateFile, fetcher.CertificateMax)
	if err != nil {
		r.reportErr(r.where("Source", "CertificateFile"), CodeTrust, "CertificateFile=: ", err)
		return
	}
	private, err := r.readTrusted(src.PrivateKeyFile, fetcher.CertificateMax)
	if err != nil {
		r.reportErr(r.where("Source", "PrivateKeyFile"), CodeTrust, "PrivateKeyFile=: ", err)
		return
	}
	at := r.where("Source", "CertificateFile")
	from, until, err := fetcher.CheckCertificate([]byte(chain), []byte(private))
	switch now := time.Now(); {
	case err != nil:
		r.report(at, Diagnostic{
			Code: CodeValue, Message: "CertificateFile=: " + unitfile.Quote(src.CertificateFile) + ": " + oneLine(err.Error()),
			Hint: "CertificateFile= holds -----BEGIN CERTIFICATE-----, PrivateKeyFile= its -----BEGIN PRIVATE KEY-----",
		})
	case now.After(until):
		r.report(at, Diagnostic{
			Code: CodeTrust, Warning: true, Message: fmt.Sprintf("CertificateFile=: %s ended at %s UTC", unitfile.Quote(src.CertificateFile), until.UTC().Format(time.DateTime)),
			Hint: "put a new one there; upgraderd need not be told",
		})
	case now.Before(from):
		r.report(at, Diagnostic{
			Code: CodeTrust, Warning: true, Message: fmt.Sprintf("CertificateFile=: %s counts from %s UTC on", unitfile.Quote(src.CertificateFile), from.UTC().Format(time.DateTime)),
			Hint: "check this host's clock",
		})
	}
}
