package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
)

// cross judges what no key can judge alone.
func (r *reading) cross() {
	r.crossTrust()
	r.crossProbes()
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
	case src.Verify == fetcher.VerifyMinisign && !named:
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

// crossProbes finds probes that could never make a release bad.
func (r *reading) crossProbes() {
	c := &r.target.Confirm
	if len(c.Probes) == 0 {
		return
	}
	if verdict := time.Duration(c.ProbeFailuresMax) * c.ProbeInterval; verdict > c.Window {
		r.report(r.where("Confirm", "WindowSec"), Diagnostic{
			Code: CodeConflict, Warning: true,
			Message: fmt.Sprintf("%d failures at one probe per %s take longer than the window of %s", c.ProbeFailuresMax, c.ProbeInterval, c.Window),
			Hint:    "make WindowSec= longer, or ProbeIntervalSec= or ProbeFailuresMax= smaller",
		})
	}
}
