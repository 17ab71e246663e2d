package config

import (
	"slices"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher"
)

// kindOf is the scheme of Path=, "" for a directory.
func kindOf(src fetcher.Options) string {
	scheme, _, isURL := strings.Cut(strings.ToLower(src.Path), "://")
	if !isURL {
		return ""
	}
	return scheme
}

// transport tells what carries the files: "http", "https" or, for a directory, "".
func transport(src fetcher.Options) string {
	switch kind := kindOf(src); {
	case kind == "" || kind == "http" || kind == "https":
		return kind
	case strings.HasPrefix(strings.ToLower(src.Endpoint), "http://"):
		return "http"
	}
	return "https"
}

// keysOfKinds are those that not every kind of source knows.
var keysOfKinds = []struct{ keys, kinds []string }{
	{[]string{"CredentialFile", "InstanceRole", "Region", "AddressingStyle"}, []string{"s3"}},
	{[]string{"Endpoint"}, append([]string{"s3", "oci"}, forges...)},
	{[]string{"Tag", "PreRelease"}, forges},
}

// crossKind finds keys that the kind of source does not know, and what it cannot
// hold.
func (r *reading) crossKind() {
	src := &r.target.Source
	if src.Path == "" { // which has a diagnostic of its own
		return
	}
	kind := kindOf(*src)
	for _, k := range keysOfKinds {
		if slices.Contains(k.kinds, kind) {
			continue
		}
		for _, key := range k.keys {
			r.noEffect(key, "it is for "+strings.Join(k.kinds, "://, ")+"://")
		}
	}
	if src.Verify == fetcher.VerifyTUF && (kind == "oci" || slices.Contains(forges, kind)) {
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeConflict,
			Message: "Verify=tuf needs metadata/ and targets/, and what " + kind + ":// leads to has no directories",
			Hint:    "serve the repository over https://, or sign SHA256SUMS and set Key=",
		})
	}
	if src.Verify == fetcher.VerifyTUF && strings.HasPrefix(src.Path, "exec:") {
		r.report(r.where("Source", "Verify"), Diagnostic{
			Code:    CodeConflict,
			Message: "Verify=tuf needs metadata/ and targets/, and a command has no directories",
			Hint:    "serve the repository over https://, or sign SHA256SUMS and set Key=",
		})
	}
	switch {
	case !slices.Contains(forges, kind):
	case src.Tag != "":
		r.noEffect("PreRelease", "Tag= names the one release that counts")
	case kind == "gitlab":
		r.noEffect("PreRelease", "GitLab marks no release as one")
	}
}

// noEffect reports a key that was given in vain.
func (r *reading) noEffect(key, why string) {
	if len(r.given["Source."+key]) > 0 {
		r.report(r.where("Source", key), Diagnostic{Code: CodeConflict, Warning: true, Message: key + "= has no effect: " + why})
	}
}
