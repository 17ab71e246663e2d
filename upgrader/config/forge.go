package config

import (
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

// forges are the schemes of projects whose releases can be followed.
var forges = []string{"github", "gitlab", "gitea"}

// forgePath accepts the project of a forge. The fetcher judges what of it is
// left: how many names there are.
func forgePath(v, scheme string) (string, error) {
	u, err := webAddress("https" + v[len(scheme):])
	switch {
	case err != nil:
		return "", err
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", refuse("name the project only; Tag= names a release of it", "the URL has a ? or a #")
	}
	return v, nil
}

// tag accepts the name of one in git.
func tag(v string) (string, error) {
	if v == "" || strings.ContainsAny(v, " \t") {
		return "", refuse("write the tag as the release has it", "%s is no tag of git", unitfile.Quote(v))
	}
	return v, plain(v)
}
