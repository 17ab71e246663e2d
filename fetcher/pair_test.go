package fetcher

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

func TestParseChoice(t *testing.T) {
	for _, tt := range []struct{ raw, program, config, wrong string }{
		{`{"bin.file":"app.2.0","cfg.file":"app.2.conf"}`, "app.2.0", "app.2.conf", ""},
		{` {"bin": {"file": "./app.2.0"}, "cfg": {"file": "./app.2.conf"}} ` + "\n", "app.2.0", "app.2.conf", ""},
		{`{"bin": {"file": "2.0"}, "cfg.file": "a"}`, "2.0", "a", ""},
		{`{"bin.file": "app.2.0"}`, "app.2.0", "", ""},
		{`{}`, "", "", `bin.file: "" is not the name of a file`},
		{`{"cfg.file": "a"}`, "", "", `bin.file: "" is not`},
		{`{"bin.file": "a", "cfg.file": ""}`, "", "", `cfg.file: "" is not`},
		{`{"bin.file": "a", "cfg.file": "a"}`, "", "", "are both"},
		{`{"bin.file": "a", "cfg.file": "../a"}`, "", "", "holds a '/'"},
		{`{"bin.file": "a", "cfg.file": "/etc/shadow"}`, "", "", "holds a '/'"},
		{`{"bin.file": "a", "bin.file": "b"}`, "", "", "is there twice"},
		{`{"bin.file": "a", "bin": {"file": "b"}}`, "", "", "is there twice"},
		{`{"Bin.File": "a"}`, "", "", `"Bin.File" is not known`},
		{`{"bin": {"file": "a", "args": "-v"}}`, "", "", `"bin.args" is not known`},
		{`{"bin": {"file": {"file": "a"}}}`, "", "", "want a string"},
		{`{"bin": "a"}`, "", "", "bin: want an object"},
		{`{"bin.file": 2.0}`, "", "", "want a string"},
		{`{"bin.file": null}`, "", "", "want a string"},
		{`{"bin.file": "a"} {}`, "", "", "something follows"},
		{`{"bin.file": "a"}]`, "", "", "something follows"},
		{`{"bin.file": "a"`, "", "", "half written"},
		{`{"bin.file": `, "", "", "half written"},
		{`{"bin": {`, "", "", "half written"},
		{`{`, "", "", "half written"},
		{`{"bin.file" "a"}`, "", "", "invalid character"},
	} {
		got, err := parseChoice([]byte(tt.raw))
		switch {
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: got %v %v, want an error with %q on one line", tt.raw, got, err, tt.wrong)
		case tt.wrong == "" && (err != nil || got != choice{tt.program, tt.config}):
			t.Errorf("%s: got %v %v", tt.raw, got, err)
		}
	}
}

func FuzzParseChoice(f *testing.F) {
	f.Add([]byte(`{"bin": {"file": "a"}, "cfg.file": "b"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseChoice(raw)
		if err == nil && (checkName(c.program) != nil || c.config != "" && checkName(c.config) != nil || c.program == c.config) {
			t.Errorf("%q gives %+v", raw, c)
		}
	})
}

func TestPairVersion(t *testing.T) {
	long := strings.Repeat("c", 80)
	digest := func(config string) string {
		sum := sha256.Sum256([]byte(config))
		return hex.EncodeToString(sum[:4])
	}
	for _, tt := range []struct{ version, config, want string }{
		{"2.0", "app.1.conf", "2.0+app.1.conf"},
		{"2.0", "mein conf", "2.0+" + digest("mein conf")},
		{strings.Repeat("2", 64), "a", strings.Repeat("2", 55) + "+" + digest("a")},
	} {
		got := pairVersion(Version(tt.version), tt.config)
		if v, err := ParseVersion(string(got)); err != nil || v != got || len(got) > versionMax {
			t.Errorf("%s and %s: got %s, which is no version: %v", tt.version, tt.config, got, err)
		}
		if string(got) != tt.want {
			t.Errorf("%s and %s: got %s, want %s", tt.version, tt.config, got, tt.want)
		}
	}
	if a, b := pairVersion("2.0", long), pairVersion("2.0", long+"c"); a == b {
		t.Errorf("two configurations give the one version %s", a)
	}
}

// TestCurrentPair is the classic folder with a program and a configuration.
func TestCurrentPair(t *testing.T) {
	s, o := folder(t)
	s.put("app.a.conf", []byte("a"))
	s.put("app.b.conf", []byte("b"))
	f := mustNew(t, o)
	fetched := func(version, program, config string) Candidate {
		t.Helper()
		l := mustCheck(t, f)
		if string(l.Current.Version) != version || !l.Commanded || len(l.Candidates) != 1 || l.Candidates[0] != l.Current {
			t.Fatalf("named %v of %v, commanded %v; want %s alone", l.Current, l.Candidates, l.Commanded, version)
		}
		v := mustFetch(t, f, l.Current, t.TempDir())
		defer v.Close()
		got, err := io.ReadAll(v.Config())
		if err != nil || string(got) != config || string(content(t, v)) != program {
			t.Errorf("fetched %q with %q, %v; want %q with %q", content(t, v), got, err, program, config)
		}
		if !v.Candidate().HasDigest() || v.Candidate().Digest == sha256.Sum256([]byte(program)) {
			t.Errorf("%v has not the digest of both", v.Candidate())
		}
		return v.Candidate()
	}
	s.put("current", []byte(`{"bin.file": "app.1.1", "cfg.file": "app.a.conf"}`))
	one := fetched("1.1+app.a.conf", "1.1", "a")
	s.put("current", []byte(`{"bin.file": "app.1.1", "cfg.file": "app.b.conf"}`))
	if two := fetched("1.1+app.b.conf", "1.1", "b"); one.Digest == two.Digest {
		t.Errorf("another configuration is no other release: %v", two)
	}
	s.put("current", []byte(`{"bin.file": "app.1.0", "cfg.file": "app.a.conf"}`))
	fetched("1.0+app.a.conf", "1.0", "a")

	s.put("current", []byte(`{"bin.file": "app.1.0", "cfg.file": "app.c.conf"}`))
	l := mustCheck(t, f)
	_, err := f.Fetch(context.Background(), l.Current, t.TempDir(), nil)
	wantCode(t, err, fault.NotFound)
	if !strings.Contains(err.Error(), "no app.c.conf") {
		t.Errorf("%v does not name the configuration", err)
	}
	s.put("current", []byte(`{"bin.file": "app.1.0", "cfg.file": "current", "x": 1}`))
	_, err = f.Check(context.Background())
	wantCode(t, err, fault.MetaSyntax)
}

// TestCurrentPairSigned has the list promise both files; what is not in it, or is
// another, does not come.
func TestCurrentPairSigned(t *testing.T) {
	s, o := folder(t)
	o.Verify, o.Keys = VerifySigned, []string{s.key}
	s.release("app.1.1", []byte("1.1"))
	s.release("a.conf", []byte("a"))
	f := mustNew(t, o)
	s.put("current", []byte(`{"bin.file": "app.1.1", "cfg.file": "b.conf"}`))
	s.put("b.conf", []byte("b"))
	_, err := f.Check(context.Background())
	wantCode(t, err, fault.MetaUnlisted)

	s.release("current", []byte(`{"bin.file": "app.1.1", "cfg.file": "a.conf"}`))
	l := mustCheck(t, f)
	want := pairDigest(sha256.Sum256([]byte("1.1")), sha256.Sum256([]byte("a")))
	if l.Current.Digest != want || !l.Commanded {
		t.Errorf("named %v, commanded %v; want the digest of both", l.Current, l.Commanded)
	}
	dir := t.TempDir()
	if v := mustFetch(t, f, l.Current, dir); v.Candidate().Digest != want {
		t.Errorf("fetched %v", v.Candidate())
	}
	s.put("a.conf", []byte("x"))
	_, err = f.Fetch(context.Background(), l.Current, t.TempDir(), nil)
	wantCode(t, err, fault.ArtifactDigest)
	forged := l.Current
	forged.Config = "b.conf"
	_, err = f.Fetch(context.Background(), forged, t.TempDir(), nil)
	wantCode(t, err, fault.MetaUnlisted)
}
