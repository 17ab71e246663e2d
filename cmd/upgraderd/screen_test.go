package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

func TestColours(t *testing.T) {
	for _, tc := range []struct {
		tty  bool
		env  []string
		want bool
	}{
		{true, []string{"TERM=xterm"}, true},
		{false, []string{"TERM=xterm"}, false},
		{true, []string{"TERM=dumb"}, false},
		{true, nil, false},
		{true, []string{"TERM=xterm", "NO_COLOR=1"}, false},
		{true, []string{"TERM=xterm", "NO_COLOR="}, true},
		{true, []string{"TERM=xterm", "SYSTEMD_COLORS=0"}, false},
		{true, []string{"TERM=xterm", "SYSTEMD_COLORS=no"}, false},
		{false, []string{"SYSTEMD_COLORS=1"}, true},
		{false, []string{"SYSTEMD_COLORS=256", "NO_COLOR=1"}, true},
		{false, []string{"TERM=xterm", "SYSTEMD_COLORS=auto-256"}, false},
	} {
		if got := colours(tc.tty, environment(tc.env...)); got != tc.want {
			t.Errorf("terminal %v, %q: got %v", tc.tty, tc.env, got)
		}
	}
}

func TestUTF8Locale(t *testing.T) {
	for env, want := range map[string]bool{
		"": true, "LANG=C": false, "LANG=POSIX": false, "LANG=C.UTF-8": true, "LANG=de_DE.utf8@euro": true,
		"LC_ALL=C LANG=C.UTF-8": false, "LC_CTYPE=en_US.UTF-8 LANG=C": true, "LANG=de_DE.ISO-8859-1": false,
	} {
		if got := utf8Locale(environment(strings.Fields(env)...)); got != want {
			t.Errorf("%s: got %v", env, got)
		}
	}
}

func TestPagers(t *testing.T) {
	for _, tc := range []struct {
		env    string
		secure bool
		want   string
	}{
		{"", false, "pager|less|more"},
		{"PAGER=most -w", false, "most -w|pager|less|more"},
		{"SYSTEMD_PAGER=less PAGER=most", false, "less|pager|less|more"},
		{"SYSTEMD_PAGER= PAGER=most", false, ""},
		{"SYSTEMD_PAGER=cat", false, ""},
		{"PAGER=cat", false, ""},
		{"PAGER=vim", true, "less"},
		{"PAGER=cat", true, ""},
	} {
		var got []string
		for _, argv := range pagers(tc.secure, func(name string) (string, bool) {
			for _, pair := range strings.SplitAfter(tc.env, " ") {
				if value, ok := strings.CutPrefix(strings.TrimSpace(pair), name+"="); ok {
					if name == "PAGER" && strings.HasSuffix(tc.env, "-w") {
						value = "most -w"
					}
					return value, true
				}
			}
			return "", false
		}) {
			got = append(got, strings.Join(argv, " "))
		}
		if text := strings.Join(got, "|"); text != tc.want {
			t.Errorf("%q, secure %v: got %q, want %q", tc.env, tc.secure, text, tc.want)
		}
	}
	for env, want := range map[string]bool{
		"": false, "SUDO_UID=1000": true, "PKEXEC_UID=1000": true,
		"SYSTEMD_PAGERSECURE=1": true, "SYSTEMD_PAGERSECURE=0 SUDO_UID=1000": false,
	} {
		if got := pagerSecure(environment(strings.Fields(env)...)); got != want {
			t.Errorf("%s: got secure %v", env, got)
		}
	}
	if got := pagerEnv(false, true, environment("SYSTEMD_LESS=R")); !slices.Equal(got, []string{"LESS=R", "LESSCHARSET=utf-8", "LESSSECURE=1"}) {
		t.Errorf("got %q", got)
	}
	if got := pagerEnv(true, false, environment()); !slices.Equal(got, []string{"LESS=FRSXMK"}) {
		t.Errorf("got %q", got)
	}
}

func TestTable(t *testing.T) {
	sample := func() *table {
		long := table{head: []string{"TARGET", "UNIT", "WHY"}, fixed: 1}
		long.row("a", "a.service", "-")
		long.row("quite-a-long-name", "quite-a-long-name.service", "it crashed:\nthe unit is failed\t(failed) → exit status 1")
		return &long
	}
	for width, want := range map[int]string{
		0: "TARGET             UNIT                       WHY\n" +
			"a                  a.service                  -\n" +
			"quite-a-long-name  quite-a-long-name.service  it crashed: the unit is failed (failed) → exit status 1\n",
		60: "TARGET             UNIT                 WHY\n" +
			"a                  a.service            -\n" +
			"quite-a-long-name  quite-a-long-name.…  it crashed: the uni…\n",
		10: "TARGET             UNIT      WHY\n" +
			"a                  a.servi…  -\n" +
			"quite-a-long-name  quite-a…  it cras…\n",
	} {
		var b bytes.Buffer
		s := &screen{raw: &b, width: width}
		if err := sample().print(s); err != nil || b.String() != want {
			t.Errorf("in %d columns: %v\n%swant\n%s", width, err, b.String(), want)
		}
	}
	var b bytes.Buffer
	s := &screen{raw: &b, width: 40, ascii: true}
	if err := sample().print(s); err != nil || strings.ContainsFunc(b.String(), func(r rune) bool { return r >= utf8.RuneSelf }) || !strings.Contains(b.String(), "...") {
		t.Errorf("in ASCII: %v\n%s", err, b.String())
	}
}

// Colours are ours, and nobody else's.
func TestPainted(t *testing.T) {
	var b bytes.Buffer
	s := &screen{raw: &b, colour: true}
	evil := table{head: []string{"A"}}
	evil.rows = append(evil.rows, []cell{{"\x1b[2Jx", red}})
	if err := evil.print(s); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[4mA\x1b[0m\n\x1b[1;31m\\u001b[2Jx\x1b[0m\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
