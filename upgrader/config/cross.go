package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// cross judges what no key can judge alone.
func (r *reading) cross() {
	r.crossTrust()
	r.crossProbes()
	r.crossFetcher()
}

func (r *reading) crossTrust() {
	src := &r.target.Source
	plainHTTP := strings.HasPrefix(strings.ToLower(src.Path), "http://")
	named := len(r.given["Source.Key"]) > 0 // a bad key has its own diagnostic
	switch {
	case src.Verify == fetcher.VerifyNo && plainHTTP:
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeTrust,
			Message: "Verify=no over http:// lets anybody on the way choose what this host runs",
			Hint:    "use https://, or sign SHA256SUMS with minisign and set Key=",
		})
	case src.Verify == fetcher.VerifyNo && named:
		src.Keys = nil
		r.report(r.where("Source", "Key"), Diagnostic{
			Code: CodeTrust, Warning: true,
			Message: "Key= has no effect: Verify=no asks for no signature",
			Hint:    "remove Verify=no to have signatures checked",
		})
	case src.Verify == fetcher.VerifyMinisign && !named && !r.torn:
		hint := "set Key= to the publisher's minisign public key, or to the file that holds it"
		if !plainHTTP {
			hint += "; Verify=no trusts whoever controls the source"
		}
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeTrust,
			Message: "Key= is missing in [Source], so no release could be trusted",
			Hint:    hint,
		})
	}
	if src.CAFile != "" && src.Path != "" && !strings.HasPrefix(strings.ToLower(src.Path), "https://") {
		r.report(r.where("Source", "CAFile"), Diagnostic{
			Code: CodeConflict, Warning: true,
			Message: "CAFile= has no effect: the source is not https://",
		})
	}
}

// crossFetcher asks the fetcher whether it would follow the source, so that
// what is found whole here is not refused there. It gets the keys themselves and
// the name by which this system knows the CA file, since the files it would
// open belong to the tree.
func (r *reading) crossFetcher() {
	if !r.ok() || r.peek {
		return // the first slip has been told; the fetcher could only repeat it
	}
	src := r.target.Source
	src.Keys = nil
	for _, id := range slices.Sorted(maps.Keys(r.trusted)) {
		if src.Verify == fetcher.VerifyMinisign {
			src.Keys = append(src.Keys, r.trusted[id].String())
		}
	}
	if src.CAFile != "" {
		if to, err := r.tree.follow(src.CAFile); err == nil {
			src.CAFile = r.tree.real(to)
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
		if known.Code == fault.ConfigTrust {
			at, d.Code = r.where("Source", "Key"), CodeTrust
		}
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
