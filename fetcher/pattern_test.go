package fetcher

import (
	"strings"
	"testing"
)

func TestPatternMatch(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		pattern, name string
		want          Version // "" when it must not match
	}{
		{"app_@v.zst", "app_1.2.zst", "1.2"},
		{"app_@v.zst", "app_1.2.zst.asc", ""},
		{"app_@v.zst", "xapp_1.2.zst", ""},
		{"app_@v.zst", "app_.zst", ""},
		{"app_@v.zst", "app_1.2.gz", ""},
		{"app_@v.zst", "", ""},
		{"app_@v", "app_1.2.zst", "1.2.zst"},
		{"@v", "1.2", "1.2"},
		{"@v", "-rf", ""},
		{"app_@v", "app_../../etc", ""},
		{"app_@v", "app_1.2\n", ""},
		{"app@@@v", "app@7", "7"},
		{"v@v/app-linux", "v1.2/app-linux", "1.2"},
		{"v@v/app-linux", "1.2/app-linux", ""},
		{"v@v/app-linux", "v1.2/app-linux.sig", ""},
		{"v@v/app-linux", "v1/2/app-linux", ""},
		{"rel/@v/app", "rel/1.2/app", "1.2"},
		// As in systemd-sysupdate the version ends at the first "-linux".
		{"app-@v-linux", "app-1.0-rc1-linux", "1.0-rc1"},
		{"app-@v-linux", "app-1.0-linux-linux", ""},
		{"app_@v_@u.raw", "app_3_0f3c6d7e-1111-2222-3333-444455556666.raw", "3"},
		{"app_@v_@u.raw", "app_3_0f3c6d7e111122223333444455556666.raw", "3"},
		{"app_@v_@u.raw", "app_3_0f3c6d7e.raw", ""},
		{"app_@v_@f.raw", "app_3_0xff.raw", "3"},
		{"app_@v_@f.raw", "app_3_fg.raw", ""},
		{"app_@v_@h", "app_3_" + digest, "3"},
		{"app_@v_@h", "app_3_" + digest[1:], ""},
		{"app_@v_@m", "app_3_0755", "3"},
		{"app_@v_@m", "app_3_4755", ""},
		{"app_@v_@m", "app_3_0888", ""},
		{"app_@v_@t_@s", "app_3_1732118400000000_1024", "3"},
		{"app_@v_@t_@s", "app_3_-1_1024", ""},
		{"app_@v+@l-@d", "app_3+2-1", "3"},
		{"app_@v_@a_@g_@r", "app_3_1_yes_off", "3"},
		{"app_@v_@a", "app_3_maybe", ""},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("ParsePattern(%q): %v", c.pattern, err)
			continue
		}
		if v, ok := p.Match(c.name); v != c.want || ok != (c.want != "") {
			t.Errorf("pattern %q, name %q: version %q, %v; want %q", c.pattern, c.name, v, ok, c.want)
		}
		if p.String() != c.pattern {
			t.Errorf("pattern %q prints as %q", c.pattern, p)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, c := range []struct{ pattern, why string }{
		{"", "no @v"},
		{"app.zst", "no @v"},
		{"app_@h", "no @v"},
		{"app_@@v", "no @v"},
		{"app_@", "lone"},
		{"app_@v@", "lone"},
		{"app_@x", "unknown wildcard @x"},
		{"app_@D_@v", "unknown wildcard @D"},
		{"@v_@v", "twice"},
		{"@v@h", "between"},
		{"/@v", "directory"},
		{"dir//@v", "directory"},
		{"../@v", "directory"},
		{"dir@s/x@v", "directory"},
		{"@v/app_@v", "twice"},
		{"app_*@v", "reserved"},
		{"app_@v?", "reserved"},
		{"app_@v\n", "reserved"},
		{"äpp_@v", "reserved"},
		{strings.Repeat("x", 300) + "@v", "at most 255"},
	} {
		_, err := ParsePattern(c.pattern)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("ParsePattern(%.20q): %v, want %q", c.pattern, err, c.why)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{"app_@v.zst", "app_1.2.zst"}, {"@v_@h", "1_00"}, {"@@@v@", "@1"}, {"@v@u", "x"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		v, ok := p.Match(name)
		if !ok {
			if v != "" {
				t.Fatalf("no match, but version %q", v)
			}
			return
		}
		if _, err := ParseVersion(string(v)); err != nil {
			t.Fatalf("pattern %q, name %q: %v", pattern, name, err)
		}
		if !strings.Contains(name, string(v)) {
			t.Fatalf("version %q does not stand in %q", v, name)
		}
	})
}
