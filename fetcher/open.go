package fetcher

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/command"
	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/client"
	"github.com/upgraderd/upgraderd/fetcher/internal/credential"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/forge"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/local"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/oci"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/run"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/s3"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/web"
)

// kinds are the sources that Path= can name, by the scheme of its URL. What is
// not a URL is a directory.
var kinds = map[string]func(u *url.URL, o Options) (source.Source, error){
	"s3":     openS3,
	"oci":    openOCI,
	"http":   openWeb,
	"https":  openWeb,
	"github": openForge,
	"gitlab": openForge,
	"gitea":  openForge,
	"exec":   openProgram,
}

// openSource gives what Path= names.
func openSource(o Options) (source.Source, error) {
	if filepath.IsAbs(o.Path) {
		return local.New(filepath.Clean(o.Path)), nil
	}
	u, err := url.Parse(o.Path)
	if err == nil && u.Fragment == "" {
		if open := kinds[u.Scheme]; open != nil {
			return open(u, o)
		}
	}
	return nil, notAPath()
}

// notAPath does not repeat the text, which may hold a password.
func notAPath() error {
	return fault.New(fault.ConfigSource, errors.New("the path is neither an absolute directory nor a URL of a kind of source"),
		"Path= takes an absolute directory, an http:// or https:// URL of one, or what docs/sources.md has: s3://, oci://, github://, gitlab://, gitea://, exec:/COMMAND")
}

func openWeb(u *url.URL, o Options) (source.Source, error) {
	if u.Hostname() == "" {
		return nil, notAPath()
	}
	return web.New(u, clientOptions(o))
}

func openS3(u *url.URL, o Options) (source.Source, error) {
	if access(o).Given() {
		return nil, fault.New(fault.ConfigSource, errors.New("a bucket takes neither a token nor a login"), "write CredentialFile= for TokenFile= or LoginFile=")
	}
	return s3.New(u, s3.Options{
		Endpoint:       o.Endpoint,
		Region:         o.Region,
		Style:          s3.Style(o.AddressingStyle),
		CredentialFile: o.CredentialFile,
		InstanceRole:   o.InstanceRole,
		Client:         clientOptions(o),
	})
}

func openForge(u *url.URL, o Options) (source.Source, error) {
	if o.Verify == VerifyTUF {
		return nil, fault.New(fault.ConfigSource, errors.New("a release of a forge has no directories, and Verify=tuf needs two"), "serve the repository over https, or set Verify=signed")
	}
	return forge.New(u, forge.Options{Endpoint: o.Endpoint, Tag: o.Tag, PreRelease: o.PreRelease, Token: access(o).Given(), Client: clientOptions(o)})
}

func openProgram(u *url.URL, o Options) (source.Source, error) {
	// What the URL says of % and ? is not so: it is the name of a file.
	_, name, _ := strings.Cut(o.Path, ":")
	if !filepath.IsAbs(name) || filepath.Clean(name) != name {
		return nil, fault.New(fault.ConfigSource, errors.New("the command is not an absolute, clean name"), "write exec:/usr/local/lib/NAME")
	}
	if o.Verify == VerifyTUF {
		return nil, fault.New(fault.ConfigSource, errors.New("a command has no directories, and Verify=tuf needs two"), "serve the repository over https, or set Verify=signed")
	}
	if o.Command == nil {
		o.Command = command.Exec(name, os.Stderr)
	}
	return run.New(name, run.Options{Target: o.Target, Stall: o.StallTimeout, Run: o.Command}), nil
}

func openOCI(u *url.URL, o Options) (source.Source, error) {
	if o.Verify == VerifyTUF {
		return nil, fault.New(fault.ConfigSource, errors.New("an artifact has no directories, and Verify=tuf needs two"), "serve the repository over https, or set Verify=signed")
	}
	return oci.New(u, oci.Options{Endpoint: o.Endpoint, Access: access(o), Client: clientOptions(o)})
}

// hasTags tells sources whose releases have tags.
func hasTags(o Options) bool {
	scheme, _, ok := strings.Cut(strings.ToLower(o.Path), "://")
	return ok && (forge.Speaks(scheme) || scheme == "oci") && o.Verify != VerifyTUF
}

func clientOptions(o Options) client.Options {
	return client.Options{
		CAFile:       o.CAFile,
		StallTimeout: o.StallTimeout,
		RateMin:      o.BandwidthMin,
		Access:       access(o),
		Certificate:  credential.Certificate{File: o.CertificateFile, KeyFile: o.PrivateKeyFile},
	}
}

// openPart opens a directory below Path=.
func openPart(o Options, elem ...string) (source.Source, error) {
	if filepath.IsAbs(o.Path) {
		o.Path = filepath.Join(append([]string{o.Path}, elem...)...)
		return openSource(o)
	}
	u, err := url.Parse(o.Path)
	if err != nil {
		return openSource(o) // which says so
	}
	for i, e := range elem {
		elem[i] = url.PathEscape(e)
	}
	o.Path = u.JoinPath(elem...).String()
	return openSource(o)
}

func closeSource(s source.Source) {
	if c, ok := s.(source.Closer); ok {
		c.Close()
	}
}
