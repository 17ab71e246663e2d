package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

func unitName(v string) (string, error) {
	u, err := unitfile.ParseUnitName(v)
	if err != nil {
		hint := ""
		stem, kind := v, "service"
		if dot := strings.LastIndexByte(v, '.'); dot >= 0 && nearest(v[dot+1:], []string{kind}) != "" {
			stem = v[:dot]
		}
		if _, e := unitfile.ParseUnitName(stem + "." + kind); e == nil {
			hint = "did you mean " + stem + "." + kind + "?"
		} else if name, ok := strings.CutSuffix(v, ".service"); ok && name != "" && len(name) < maxName {
			hint = "systemd would write it " + unitfile.EscapeUnit(name) + ".service"
		}
		return "", refuse(hint, "%s is no unit name: %w", unitfile.Quote(v), err)
	}
	switch {
	case u.Type != "service":
		return "", refuse("name the .service that runs the program", "%s is a .%s, and only a .service runs a release", unitfile.Quote(v), u.Type)
	case u.Template():
		return "", refuse(fmt.Sprintf("name an instance, such as %s@1.service", u.Prefix), "%s is a template, which runs nothing by itself", unitfile.Quote(v))
	}
	return v, nil
}

// dependent accepts a unit that may be started. Who may start a target may isolate
// it, too, which stops the rest of the host.
func dependent(_ scope, v string) (string, error) {
	u, err := unitfile.ParseUnitName(v)
	if err != nil {
		return "", refuse("write a full name, such as app-worker.service", "%s is no unit name: %w", unitfile.Quote(v), err)
	}
	switch u.Type {
	case "target", "slice", "scope", "device":
		return "", refuse("name the units that it is made of", "%s is a .%s, which is not started by upgraderd", unitfile.Quote(v), u.Type)
	}
	if u.Template() {
		return "", refuse(fmt.Sprintf("name an instance, such as %s@1.%s", u.Prefix, u.Type), "%s is a template, which runs nothing by itself", unitfile.Quote(v))
	}
	return v, nil
}

// inside accepts the name of a file inside a release.
func inside(v string) (string, error) {
	switch {
	case v == "" || v == ".":
		return "", errors.New("the name of the program is empty")
	case strings.HasPrefix(v, "~"):
		return "", refuse("", "%s: ~ means nothing here", unitfile.Quote(v))
	case path.IsAbs(v):
		return "", refuse("write it without the leading directories, such as bin/app", "%s is absolute, but names a file inside a release", unitfile.Quote(v))
	case v == ".." || strings.HasPrefix(path.Clean(v), "../"):
		return "", refuse("", "%s leads out of the release", unitfile.Quote(v))
	case path.Clean(v) != v:
		return "", refuse(fmt.Sprintf("write %s", path.Clean(v)), "%s is not a clean path", unitfile.Quote(v))
	}
	for _, part := range strings.Split(v, "/") {
		if len(part) > 255 {
			return "", refuse("", "%s has a part longer than 255 bytes", unitfile.Quote(v))
		}
	}
	return v, plain(v)
}

// plain refuses control characters, which nobody sees in a message.
func plain(v string) error {
	if strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		return refuse("", "%s holds a control character", unitfile.Quote(v))
	}
	return nil
}

// absolute accepts the absolute name of a file, cleaned.
func absolute(v string) (string, error) {
	switch {
	case strings.HasPrefix(v, "~"):
		return "", refuse("write the whole name, beginning with /", "%s: ~ means nothing here", unitfile.Quote(v))
	case !path.IsAbs(v):
		return "", refuse("write the whole name, beginning with /", "%s is not absolute", unitfile.Quote(v))
	}
	for _, part := range strings.Split(v, "/") {
		if part == ".." {
			return "", refuse("", "%s holds ..", unitfile.Quote(v))
		}
	}
	return path.Clean(v), plain(v)
}

// sourcePath accepts where releases come from. What was written is never
// quoted in a message: it may hold a password.
func sourcePath(v string) (string, error) {
	const hint = "write an absolute directory, or a URL that begins with https://, s3://, oci://, github://, gitlab:// or gitea://, or exec: and a command"
	if path.IsAbs(v) && !strings.HasPrefix(v, "//") {
		v, err := absolute(v)
		if err == nil && v == "/" {
			err = refuse("name the directory that holds SHA256SUMS", "the root directory is no source")
		}
		return v, err
	}
	if program, ok := strings.CutPrefix(v, "exec:"); ok {
		program, err := absolute(program) // which makes exec:///x of systemd's kind exec:/x
		return "exec:" + program, err
	}
	scheme, _, ok := strings.Cut(v, "://")
	if !ok || strings.Trim(strings.ToLower(scheme), "abcdefghijklmnopqrstuvwxyz0123456789+") != "" {
		return "", refuse(hint, "this is neither an absolute directory nor a URL")
	}
	switch strings.ToLower(scheme) {
	case "http", "https":
	case "s3", "oci":
		return v, plain(v) // the fetcher judges what is in it
	case "github", "gitlab", "gitea":
		return forgePath(v, scheme)
	default:
		return "", refuse(hint, "%s is no kind of source", unitfile.Quote(scheme+"://"))
	}
	u, err := webAddress(v)
	switch {
	case err != nil:
		return "", err
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", refuse("give the URL of the directory that holds SHA256SUMS", "the URL has a ? or a #, but file names are put behind it")
	}
	return v, nil
}

// mirror accepts what sourcePath does, but no directory.
func mirror(_ scope, v string) (string, error) {
	scheme, _, isURL := strings.Cut(strings.ToLower(v), "://")
	switch {
	case path.IsAbs(v):
		return "", refuse("write a URL that begins with https://", "a directory has no mirrors and is none")
	case isURL && scheme != "http" && scheme != "https":
		return "", refuse("write a URL that begins with https://", "%s has no mirrors and is none", unitfile.Quote(scheme+"://"))
	}
	return sourcePath(v)
}

// endpoint accepts the URL of a service.
func endpoint(v string) (string, error) {
	u, err := webAddress(v)
	switch {
	case err != nil:
		return "", err
	case u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", refuse("write the https:// URL of the service or its API", "the endpoint is not a plain http(s) URL")
	}
	return v, nil
}

// oneWord accepts a name without spaces.
func oneWord(v string) (string, error) {
	if strings.ContainsAny(v, " \t") {
		return "", refuse("", "%s is more than one word", unitfile.Quote(v))
	}
	return v, plain(v)
}

// fileName accepts the name of a file in the source.
func fileName(v string) (string, error) {
	if v == "" || v == "." || v == ".." || strings.Contains(v, "/") || len(v) > 255 {
		return "", refuse("write the name without directories, such as current.conf", "%s is not the name of a file in the source", unitfile.Quote(v))
	}
	return v, plain(v)
}

// webAddress accepts an http or https URL. Its errors do not show the URL.
func webAddress(v string) (*url.URL, error) {
	const secrets = "what a .upgrade file holds is no secret: everybody can read it"
	u, err := url.Parse(v)
	switch {
	// Where the URL cannot be read, a part of a password may be what the
	// parser complains of.
	case err != nil && strings.Contains(v, "@"):
		return nil, refuse(secrets, "this is no URL; it seems to hold a user name or password")
	case err != nil:
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, fmt.Errorf("this is no URL: %w", err)
	case u.User != nil:
		return nil, refuse(secrets, "the URL holds a user name or password")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, refuse("write https://host/directory", "the URL names no host")
	}
	if err := host(u.Hostname()); err != nil {
		return nil, err
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if err := portNumber(port); err != nil {
			return nil, err
		}
	}
	return u, plain(u.Path)
}

// host accepts a DNS name in ASCII or an IP address.
func host(v string) error {
	if ip, err := netip.ParseAddr(v); err == nil {
		if ip.Zone() != "" {
			return refuse("", "the address %s has a zone, which means something on one machine only", unitfile.Quote(v))
		}
		return nil
	}
	for _, r := range v {
		if r > 0x7e {
			// Letters of other scripts can look like Latin ones.
			return refuse("write it in its ASCII form, beginning with xn--", "the host name %s holds %q", unitfile.Quote(v), r)
		}
		if r > 0x7f || !alphanumeric(byte(r)) && !strings.ContainsRune("-_.", r) {
			return refuse("", "the host name %s holds %q", unitfile.Quote(v), r)
		}
	}
	return nil
}

func portNumber(v string) error {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return refuse("a port is a number from 1 to 65535", "%s is no port", unitfile.Quote(v))
	}
	return nil
}

func pattern(_ scope, v string) (string, error) {
	if _, err := fetcher.ParsePattern(v); err != nil {
		return "", refuse("a pattern is a file name with @v where the version stands, such as app_@v.tar.gz", "%w", err)
	}
	return v, nil
}

// setVerify has a boolean's spellings, too, since sysupdate.d(5) has a boolean
// there.
func setVerify(_ scope, t *upgrader.Target, value string) error {
	yes, err := unitfile.Bool(value)
	switch {
	case value == string(fetcher.VerifySigned), err == nil && yes:
		t.Source.Verify = fetcher.VerifySigned
	case value == string(fetcher.VerifyTUF):
		t.Source.Verify = fetcher.VerifyTUF
	case err == nil:
		t.Source.Verify = fetcher.VerifyNo
	case slices.Contains([]string{"minisign", "openpgp", "gpg", "ssh"}, strings.ToLower(value)):
		return refuse("write Verify=signed; the keys in Key= say which kind of signature it is", "%s is none of signed, tuf, no", unitfile.Quote(value))
	default:
		return noneOf(value, []string{string(fetcher.VerifySigned), string(fetcher.VerifyTUF), string(fetcher.VerifyNo)})
	}
	return nil
}

func setManifest(_ scope, t *upgrader.Target, value string) error {
	yes, err := unitfile.Bool(value)
	if err != nil {
		return refuse("write yes or no", "%s is no boolean", unitfile.Quote(value))
	}
	t.Source.NoManifest = !yes
	return nil
}

func setMinVersion(s scope, t *upgrader.Target, value string) error {
	v, err := s.expand(value)
	if err == nil {
		t.MinVersion, err = fetcher.ParseVersion(v)
	}
	return err
}

// setCheck reads a command of which every word counts: no shell, no $VAR.
func setCheck(s scope, t *upgrader.Target, value string) error {
	argv, err := command(s, value)
	if err != nil {
		return err
	}
	if !path.IsAbs(argv[0]) {
		if argv[0], err = inside(argv[0]); err != nil {
			return err
		}
	}
	t.Check = argv
	return nil
}

const maxWords = 256

func command(s scope, value string) ([]string, error) {
	argv, err := split(s, value)
	switch {
	case err != nil:
		return nil, err
	case len(argv) == 0 || argv[0] == "":
		return nil, errors.New("the command is empty")
	case len(argv) > maxWords:
		return nil, refuse("put it into a script", "%d words, a command has at most %d", len(argv), maxWords)
	case strings.IndexByte("@-:+!|", argv[0][0]) >= 0:
		return nil, refuse("a command has none of the prefixes of ExecStart=, and no shell; for a shell write /bin/sh -c '…'", "%s is no program", unitfile.Quote(argv[0]))
	}
	return argv, nil
}

// addProbe reads one probe; a whole assignment is one, so that a command may
// have arguments.
func addProbe(s scope, t *upgrader.Target, value string) error {
	const kinds = "write http://…, https://…, tcp://HOST:PORT, unix:/PATH or exec:COMMAND"
	if len(t.Confirm.Probes) == maxItems {
		return refuse("", "more than %d probes", maxItems)
	}
	scheme, rest, ok := strings.Cut(value, ":")
	if !ok {
		return refuse(kinds, "this is no probe")
	}
	var p upgrader.Probe
	var err error
	if scheme == "exec" {
		p.Kind = upgrader.ProbeExec
		if p.Command, err = command(s, rest); err == nil {
			// The daemon has no directory of its own to look in.
			p.Command[0], err = absolute(p.Command[0])
		}
	} else if value, err = s.expand(value); err == nil {
		_, rest, _ = strings.Cut(value, ":")
		switch scheme {
		case "http", "https":
			p = upgrader.Probe{Kind: upgrader.ProbeHTTP, Address: value}
			_, err = webAddress(value)
		case "tcp":
			p = upgrader.Probe{Kind: upgrader.ProbeTCP, Address: strings.TrimPrefix(rest, "//")}
			err = hostPort(rest)
		case "unix":
			p = upgrader.Probe{Kind: upgrader.ProbeUnix}
			p.Address, err = socketPath(rest)
		default:
			err = refuse(kinds, "%s is no kind of probe", unitfile.Quote(scheme+":"))
		}
	}
	if err != nil {
		return err
	}
	t.Confirm.Probes = append(t.Confirm.Probes, p)
	return nil
}

func hostPort(rest string) error {
	const hint = "write tcp://HOST:PORT, such as tcp://127.0.0.1:8080"
	address, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return refuse(hint, "a tcp probe begins with tcp://")
	}
	name, port, err := net.SplitHostPort(address)
	switch {
	case err != nil || name == "":
		return refuse(hint, "%s is not HOST:PORT", unitfile.Quote(address))
	}
	if err := host(name); err != nil {
		return err
	}
	return portNumber(port)
}

// socketPathMax is what sockaddr_un has room for, with its NUL.
const socketPathMax = 107

// socketPath accepts a socket's file, or @NAME in the abstract namespace.
func socketPath(v string) (string, error) {
	v = strings.TrimPrefix(v, "//") // unix:///run/app.sock is a usual spelling
	if len(v) > socketPathMax {
		return "", refuse("", "a socket's name has at most %d bytes, this one %d", socketPathMax, len(v))
	}
	if strings.HasPrefix(v, "@") && len(v) > 1 {
		return v, plain(v)
	}
	return absolute(v)
}
