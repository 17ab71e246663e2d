package main

import (
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPackageVersion(t *testing.T) {
	for given, want := range map[string]string{
		"v1.2.3":     "1.2.3",
		"v1.2.3-rc1": "1.2.3~rc1",
		"v0.0.0-20261127193847-58783d371e2a+dirty": "0.0.0~20261127193847~58783d371e2a+dirty",
		"(devel)": "",
		"":        "",
	} {
		got, err := packageVersion(given)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v, want %q", given, got, err, want)
		}
	}
}

func TestBuiltFrom(t *testing.T) {
	commit := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.time", Value: "2027-01-31T12:00:00Z"}}}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if got, err := builtFrom(commit); err != nil || !got.Equal(time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("of a commit: got %v, %v", got, err)
	}
	if _, err := builtFrom(&debug.BuildInfo{}); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("of no commit: got %v, want what to do", err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	if got, err := builtFrom(commit); err != nil || got.Unix() != 86400 {
		t.Errorf("given: got %v, %v", got, err)
	}
	for _, bad := range []string{"yesterday", "-1"} {
		t.Setenv("SOURCE_DATE_EPOCH", bad)
		if _, err := builtFrom(commit); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

// Each kind of host has its own places for some files, and each file gets one.
func TestPlaces(t *testing.T) {
	for file, want := range map[string]string{
		"/usr/bin/upgraderd":                           "both:/usr/bin/upgraderd",
		"/usr/share/zsh/vendor-completions/_upgraderd": "deb:/usr/share/zsh/vendor-completions/_upgraderd rpm:/usr/share/zsh/site-functions/_upgraderd",
		"/usr/share/doc/upgraderd/copyright":           "deb:/usr/share/doc/upgraderd/copyright rpm:/usr/share/licenses/upgraderd/LICENSE",
		"/usr/share/doc/upgraderd/changelog.Debian.gz": "deb:/usr/share/doc/upgraderd/changelog.Debian.gz",
		"/usr/share/lintian/overrides/upgraderd":       "deb:/usr/share/lintian/overrides/upgraderd",
		"/usr/share/doc/upgraderd/changelog.gz":        "both:/usr/share/doc/upgraderd/changelog.gz",
	} {
		var got []string
		for _, c := range (content{Destination: file}).places() {
			if c.Packager == "" {
				c.Packager = "both"
			}
			got = append(got, c.Packager+":"+c.Destination)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
}

// Of directories the .rpm names those that are its own.
func TestOwnDirs(t *testing.T) {
	var got []string
	for _, c := range ownDirs([]content{
		{Destination: "/usr/bin/upgraderd"}, {Destination: "/usr/lib/upgraderd/a"}, {Destination: "/usr/share/doc/upgraderd/examples/b"},
		{Destination: "/usr/share/deb/upgraderd/c", Packager: "deb"}, {Destination: "/usr/share/licenses/upgraderd/d", Packager: "rpm"},
	}, time.Time{}) {
		got = append(got, c.Packager+" "+c.Type+" "+c.Destination)
	}
	want := []string{"rpm dir /usr/lib/upgraderd", "rpm dir /usr/share/doc/upgraderd", "rpm dir /usr/share/doc/upgraderd/examples", "rpm dir /usr/share/licenses/upgraderd"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
