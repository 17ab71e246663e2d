package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestBuild(t *testing.T) {
	info := &debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123abc"}, {Key: "vcs.time", Value: "2027-01-31T00:00:00Z"}, {Key: "vcs.modified", Value: "true"},
		},
	}
	got := readBuild(info, true)
	want := build{"v1.2.3", "0123abc", "2027-01-31T00:00:00Z", true, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if text := got.String(); !strings.HasPrefix(text, "upgraderd v1.2.3, commit 0123abc (modified), go") {
		t.Errorf("got %q", text)
	}
	if text := readBuild(nil, false).String(); !strings.HasPrefix(text, "upgraderd (devel), commit unknown, go") {
		t.Errorf("without what was stamped: got %q", text)
	}
}
