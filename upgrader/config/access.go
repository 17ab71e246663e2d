package config

import (
	"fmt"
	"os"
	"strings"

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
	for _, key := range []struct{ name, file string }{{"TokenFile", src.TokenFile}, {"LoginFile", src.LoginFile}} {
		if key.file == "" {
			continue
		}
		warn := func(hint, format string, a ...any) {
			r.report(r.where("Source", key.name), Diagnostic{
				Code: CodeTrust, Warning: true, Message: key.name + "=: " + fmt.Sprintf(format, a...), Hint: hint,
			})
		}
		switch scheme, _, isURL := strings.Cut(strings.ToLower(src.Path), "://"); {
		case src.Path == "": // which has a diagnostic of its own
		case !isURL:
			warn("", "has no effect: the source is a directory")
		case scheme == "http":
			warn("use https://", "over http:// everybody on the way can read it")
		}
		if r.peek {
			continue
		}
		if to, err := r.tree.follow(key.file); err == nil {
			st, err := os.Stat(r.tree.real(to))
			if err == nil && st.Mode().IsRegular() && st.Mode()&0o004 != 0 {
				warn("chmod o-r "+printable(key.file)+", and change what it holds", "mode %04o lets everybody read %s", st.Mode().Perm(), unitfile.Quote(key.file))
			}
		}
	}
}
