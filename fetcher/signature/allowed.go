package signature

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// grant is what a line of an allowed-signers file says about its key; the zero
// grant is a plain key, which may always sign. See ALLOWED SIGNERS in
// ssh-keygen(1).
type grant struct {
	after, before time.Time // zero: no bound
	elsewhere     bool      // the key is for other namespaces only
}

var errCertAuthority = errors.New("cert-authority is not supported: list the keys themselves")

// cutPrincipals takes the first field off a line. It may be quoted, and tells
// people whose key it is; here nobody is asked for by name.
func cutPrincipals(line string) (principals, rest string) {
	quoted := false
	for i, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return strings.Trim(line[:i], `"`), strings.TrimLeft(line[i:], " \t")
		}
	}
	return line, ""
}

func parseGrant(options []string) (grant, error) {
	var g grant
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		unquoted, ok := strings.CutPrefix(value, `"`)
		if ok {
			value, ok = strings.CutSuffix(unquoted, `"`)
		}
		name = strings.ToLower(name)
		if name == "cert-authority" {
			return g, errCertAuthority
		}
		if !ok {
			return g, fmt.Errorf("the option %q is unknown, or its value is not in quotes", option)
		}
		var err error
		switch name {
		case "namespaces":
			g.elsewhere = !matchList(value, Namespace)
		case "valid-after":
			g.after, err = parseValidity(value)
		case "valid-before":
			g.before, err = parseValidity(value)
		default:
			err = fmt.Errorf("the option %s= is unknown", name)
		}
		if err != nil {
			return g, err
		}
	}
	if !g.after.IsZero() && !g.before.IsZero() && !g.before.After(g.after) {
		return g, errors.New("valid-before= is not after valid-after=")
	}
	return g, nil
}

// parseValidity reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, in local time or
// with a Z behind it in UTC.
func parseValidity(value string) (time.Time, error) {
	zone := time.Local
	digits, utc := strings.CutSuffix(value, "Z")
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			return time.ParseInLocation(layout, digits, zone)
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 20270131, 202701311200Z", value)
}

// matchList is a pattern-list of ssh_config(5): names with * and ?, separated by
// commas; one with ! before it takes out what it matches.
func matchList(list, name string) bool {
	found := false
	for _, pattern := range strings.Split(list, ",") {
		pattern, not := strings.CutPrefix(strings.TrimSpace(pattern), "!")
		// path.Match has brackets and backslashes, which a pattern-list has not.
		plain := strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(pattern)
		if ok, err := path.Match(plain, name); err != nil || !ok {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// allowed tells why a key may not sign now.
func (k *sshKey) allowed(now time.Time) error {
	var why error
	for _, g := range k.grants {
		switch {
		case g.elsewhere:
			why = fault.New(fault.SigNamespace, fmt.Errorf("its line does not allow the namespace %q", Namespace), "add the namespace to its line in the allowed-signers file")
		case !g.after.IsZero() && now.Before(g.after):
			why = untimely("it is good from %s on", g.after)
		case !g.before.IsZero() && !now.Before(g.before):
			why = untimely("it was good until %s", g.before)
		default:
			return nil
		}
	}
	return why
}

func untimely(format string, t time.Time) error {
	return fault.New(fault.SigExpired, fmt.Errorf(format, stamp(t)), "sign with a key that is good today, or change its line in the allowed-signers file")
}
