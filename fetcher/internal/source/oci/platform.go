package oci

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Platform is what a program runs on, in the words of Go.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// String reads linux/arm/v7.
func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// here is the platform of this process.
func here() Platform {
	p := Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = "v6"
		if cpu.ARM.HasVFPv3 {
			p.Variant = "v7"
		}
	}
	return p
}

// baseline are the variants that every processor of an architecture can run.
var baseline = map[string]string{"amd64": "v1", "arm64": "v8"}

// choose gives the manifest of an index that runs on p: one for p's variant,
// else one for no variant or for that which all can run.
func (p Platform) choose(manifests []descriptor) (descriptor, error) {
	var there []string
	var chosen *descriptor
	for _, d := range manifests {
		q := d.Platform
		if q == nil || q.OS == "unknown" { // attestations stand beside manifests
			continue
		}
		there = append(there, fmt.Sprintf("%.40s", q))
		if q.OS != p.OS || q.Architecture != p.Architecture {
			continue
		}
		switch {
		case p.Variant != "" && q.Variant == p.Variant:
			return d, d.checked()
		case chosen == nil && (q.Variant == "" || q.Variant == baseline[q.Architecture]):
			chosen = &d
		}
	}
	if chosen != nil {
		return *chosen, chosen.checked()
	}
	err := fmt.Errorf("the index has no manifest for %s", p)
	if len(there) > 0 {
		err = fmt.Errorf("%w, but for %.200s", err, strings.Join(there, ", "))
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
		err = errors.New("the index has no manifest for " + p.String())
	}
	return descriptor{}, fault.Passing(fault.SourceMissing, err, "push one for this platform, or follow the tag of a single manifest")
}

func (d descriptor) checked() error {
	if err := d.check(); err != nil {
		return notAnArtifact(err)
	}
	return nil
}
