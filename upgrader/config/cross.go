package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/signature"
	"github.com/upgraderd/upgraderd/upgrader"
)

// cross judges what no key can judge alone.
func (r *reading) cross() {
	r.crossOwn()
	r.crossConfig()
	r.crossTrust()
	r.crossManifest()
	r.crossAccess()
	r.crossKind()
	r.crossProbes()
	r.crossFetcher()
}

// crossOwn holds the target of upgraderd itself to what `upgraderd launch` starts
// without reading any of this: one name, one unit, one program.
func (r *reading) crossOwn() {
	t := &r.target
	named, own := r.name == upgrader.OwnTarget, t.Unit == upgrader.OwnUnit
	switch {
	case named == own && !own:
	case t.Unit == "": // which has a diagnostic of its own
	case own && !named:
		r.report(r.where("Upgrade", "Unit"), Diagnostic{
			Code: CodeConflict, Message: fmt.Sprintf("Unit=: %s is upgraderd itself, which is upgraded by the target %s only", upgrader.OwnUnit, upgrader.OwnTarget),
			Hint: "name this file " + upgrader.OwnTarget + suffix,
		})
	case named && !own:
		r.report(r.where("Upgrade", "Unit"), Diagnostic{
			Code: CodeConflict, Message: fmt.Sprintf("the target %s is for upgraderd itself, and %s is another unit", upgrader.OwnTarget, t.Unit),
			Hint: "give this file another name, or write Unit=" + upgrader.OwnUnit,
		})
	case t.Swap == upgrader.SwapHandover:
		r.report(r.where("Upgrade", "Swap"), Diagnostic{
			Code: CodeConflict, Message: "Swap=handover: " + upgrader.OwnUnit + " has no sockets to hand over, it is restarted",
			Hint: "write Swap=restart",
		})
	case t.Program != upgrader.OwnProgram:
		r.report(r.where("Upgrade", "Program"), Diagnostic{
			Code: CodeConflict, Message: fmt.Sprintf("Program=%s: of a release of upgraderd, %s starts %s and nothing else", printable(t.Program), upgrader.OwnUnit, upgrader.OwnProgram),
			Hint: "leave Program= out",
		})
	}
}

// crossConfig holds a configuration to what a reload can do.
func (r *reading) crossConfig() {
	t := &r.target
	conflict := func(key, message, hint string) {
		r.report(r.where("Upgrade", key), Diagnostic{Code: CodeConflict, Message: message, Hint: hint})
	}
	switch {
	case t.Config == "" && t.Swap == upgrader.SwapReload:
		conflict("Swap", "Swap=reload: a reload brings no other program, only another configuration", "write Swap=auto, or Config= where the releases are configurations")
	case t.Config == "":
	case len(r.given["Upgrade.Program"]) > 0:
		conflict("Program", "Program= and Config= are both given: a release is a program or a configuration", "leave one of them out, and follow the other by a target of its own")
	case t.Swap == upgrader.SwapHandover:
		conflict("Swap", "Swap=handover: a configuration takes no sockets over", "write Swap=reload; under upgraderd supervise that starts a new worker")
	case t.Unit == upgrader.OwnUnit:
		conflict("Config", upgrader.OwnUnit+" has no configuration of this kind", "edit the .upgrade files, and reload it")
	}
}

func (r *reading) crossTrust() {
	src := &r.target.Source
	plainHTTP := transport(*src) == "http" || slices.ContainsFunc(src.Mirrors, func(path string) bool {
		return strings.HasPrefix(strings.ToLower(path), "http://")
	})
	named := len(r.given["Source.Key"]) > 0 // a bad key has its own diagnostic
	if src.Verify == fetcher.VerifyTUF {
		r.crossRoot()
	} else if len(r.given["Source.Root"]) > 0 {
		r.report(r.where("Source", "Root"), Diagnostic{
			Code: CodeTrust, Warning: true,
			Message: "Root= has no effect: it is for Verify=tuf",
		})
		src.Root = ""
	}
	switch {
	case src.Verify == fetcher.VerifyTUF:
	case src.Verify == fetcher.VerifyNo && plainHTTP:
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeTrust,
			Message: "Verify=no over http:// lets anybody on the way choose what this host runs",
			Hint:    "use https://, or sign SHA256SUMS and set Key=",
		})
	case src.Verify == fetcher.VerifyNo:
		for _, name := range []string{"Key", "RevokedKey", "Threshold", "MaxAge"} {
			if len(r.given["Source."+name]) > 0 {
				r.report(r.where("Source", name), Diagnostic{
					Code: CodeTrust, Warning: true,
					Message: name + "= has no effect: Verify=no asks for no signature",
					Hint:    "remove Verify=no to have signatures checked",
				})
			}
		}
		src.Keys, src.RevokedKeys, src.Threshold, src.MaxAge = nil, nil, 0, 0
	case src.Verify == fetcher.VerifySigned && !named && !r.torn:
		hint := "set Key= to the publisher's public key, or to the file that holds it"
		if !plainHTTP {
			hint += "; Verify=no trusts whoever controls the source"
		}
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeTrust,
			Message: "Key= is missing in [Source], so no release could be trusted",
			Hint:    hint,
		})
	case r.ok() && !r.peek:
		r.crossKeys()
	}
	if kind := kindOf(*src); len(src.Mirrors) > 0 && src.Path != "" && kind != "http" && kind != "https" {
		r.report(r.where("Source", "Mirror"), Diagnostic{
			Code: CodeConflict, Message: "Mirror= is given, and the source is not a web server",
			Hint: "remove Mirror=, or name an http(s) URL in Path=",
		})
	}
	if src.CAFile != "" && src.Path != "" && transport(*src) != "https" {
		r.report(r.where("Source", "CAFile"), Diagnostic{
			Code: CodeConflict, Warning: true,
			Message: "CAFile= has no effect: the source is not https://",
		})
	}
}

// crossManifest holds a source of one file to what it can be.
func (r *reading) crossManifest() {
	src := &r.target.Source
	if !src.NoManifest {
		return
	}
	refuse := func(key, hint, format string, a ...any) {
		r.report(r.where("Source", key), Diagnostic{Code: CodeConflict, Message: fmt.Sprintf(format, a...), Hint: hint})
	}
	switch {
	case src.Verify == fetcher.VerifyTUF:
		refuse("Manifest", "remove Manifest=no", "Manifest=no stands beside Verify=tuf, and a repository has lists")
	case len(r.given["Source.MatchPattern"]) > 0:
		refuse("MatchPattern", "remove MatchPattern=, or Manifest=no", "MatchPattern= has nothing to choose from: Manifest=no means one file")
	case path.IsAbs(src.Path):
		refuse("Manifest", "leave Manifest=no out; with Verify=no a directory needs no SHA256SUMS", "Manifest=no is for a URL, and the source is a directory")
	}
}

// crossRoot has one root say which keys count, and nothing else.
func (r *reading) crossRoot() {
	for _, name := range []string{"Key", "RevokedKey", "Threshold"} {
		if len(r.given["Source."+name]) > 0 {
			r.report(r.where("Source", name), Diagnostic{
				Code:    CodeTrust,
				Message: name + "= stands beside Verify=tuf, where the root says which keys count",
				Hint:    "remove " + name + "=, or Verify=tuf",
			})
		}
	}
	if len(r.given["Source.Current"]) > 0 {
		r.report(r.where("Source", "Current"), Diagnostic{
			Code:    CodeConflict,
			Message: "Current= stands beside Verify=tuf, whose metadata says what counts",
			Hint:    "remove Current=, or Verify=tuf",
		})
	}
	if len(r.given["Source.MaxAge"]) > 0 {
		r.report(r.where("Source", "MaxAge"), Diagnostic{
			Code: CodeTrust, Warning: true,
			Message: "MaxAge= has no effect: each role of Verify=tuf says when it ends",
		})
	}
	r.target.Source.Threshold, r.target.Source.MaxAge = 0, 0
	if len(r.given["Source.Root"]) == 0 && !r.torn {
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeTrust,
			Message: "Root= is missing in [Source], so no release could be trusted",
			Hint:    "set Root= to a file that holds a root.json of the repository",
		})
	}
}

// crossKeys looks at all keys together.
func (r *reading) crossKeys() {
	src := r.target.Source
	_, err := signature.New(r.known.trusted, r.known.revoked, src.Threshold)
	var no *fetcher.Error
	if !errors.As(err, &no) {
		return
	}
	at := r.where("Source", "Key")
	if src.Threshold > 1 && len(r.known.trusted) > 0 && strings.Contains(no.Err.Error(), "Threshold=") {
		at = r.where("Source", "Threshold")
	}
	r.report(at, Diagnostic{Code: CodeTrust, Message: oneLine(no.Err.Error()), Hint: oneLine(no.Hint)})
}

// crossFetcher asks the fetcher whether it would follow the source, so that
// what is found whole here is not refused there. It gets the names by which
// this system knows the files it would open, since they belong to the tree, and no
// keys and no root, which have been judged.
func (r *reading) crossFetcher() {
	if !r.ok() || r.peek {
		return // the first slip has been told; the fetcher could only repeat it
	}
	src := r.target.Source
	if src.Verify == fetcher.VerifyTUF { // which alone knows directories
		src.Patterns = slices.Clone(src.Patterns)
		for i, p := range src.Patterns {
			src.Patterns[i] = path.Base(p)
		}
	}
	src.Verify, src.Keys, src.RevokedKeys, src.Threshold, src.Root = fetcher.VerifyNo, nil, nil, 0, ""
	for _, file := range []*string{&src.CAFile, &src.TokenFile, &src.LoginFile, &src.CertificateFile, &src.PrivateKeyFile, &src.CredentialFile} {
		if *file == "" {
			continue
		}
		if to, err := r.tree.follow(*file); err == nil {
			*file = r.tree.real(to)
		}
	}
	f, err := fetcher.New(src, nil)
	if err == nil {
		f.Close()
		return
	}
	at, d := r.place("Source"), Diagnostic{Code: CodeValue, Message: oneLine(err.Error())}
	var known *fetcher.Error
	if errors.As(err, &known) {
		d.Message, d.Hint = oneLine(known.Err.Error()), oneLine(known.Hint)
	}
	r.report(at, d)
}

// crossProbes finds probes that could never make a release bad.
func (r *reading) crossProbes() {
	c := &r.target.Confirm
	if len(c.Probes) == 0 || !r.ok() {
		return // a value that was refused is not there to compare with
	}
	if verdict := time.Duration(c.ProbeFailuresMax) * c.ProbeInterval; verdict > c.Window {
		r.report(r.where("Confirm", "WindowSec"), Diagnostic{
			Code: CodeConflict, Warning: true,
			Message: fmt.Sprintf("%d failures at one probe per %s take longer than the window of %s", c.ProbeFailuresMax, c.ProbeInterval, c.Window),
			Hint:    "make WindowSec= longer, or ProbeIntervalSec= or ProbeFailuresMax= smaller",
		})
	}
}
