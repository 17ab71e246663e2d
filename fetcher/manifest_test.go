package fetcher

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

var someDigest = strings.Repeat("0123456789abcdef", 4)

func TestParseManifest(t *testing.T) {
	raw := someDigest + "  app_1.bin\n" + strings.ToUpper(someDigest) + " *app 2.bin\n" + someDigest + "  ünï.bin"
	m, err := parseManifest([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	entries := m.entries
	want := []string{"app_1.bin", "app 2.bin", "ünï.bin"}
	if len(entries) != len(want) {
		t.Fatalf("got %d entries, want %d", len(entries), len(want))
	}
	for i, e := range entries {
		if e.name != want[i] || fmt.Sprintf("%x", e.digest) != someDigest {
			t.Errorf("entry %d is %q %x", i, e.name, e.digest)
		}
	}
}

func TestParseManifestRefuses(t *testing.T) {
	line := func(name string) string { return someDigest + "  " + name + "\n" }
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(fmt.Sprint("app_", i)))
		}
		return b.String()
	}
	for _, c := range []struct {
		name, raw string
		code      fault.Code
	}{
		{"empty", "", fault.MetaEmpty},
		{"blank", " \n\n\t\n", fault.MetaEmpty},
		{"blank line between", line("a") + "\n" + line("b"), fault.MetaSyntax},
		{"comment", "# hello\n" + line("a"), fault.MetaSyntax},
		{"byte order mark", "\xef\xbb\xbf" + line("a"), fault.MetaSyntax},
		{"digest too short", someDigest[1:] + "  a\n", fault.MetaSyntax},
		{"digest too long", someDigest + "0  a\n", fault.MetaSyntax},
		{"digest of no hex", "g" + someDigest[1:] + "  a\n", fault.MetaSyntax},
		{"one space", someDigest + " a\n", fault.MetaSyntax},
		{"one space, longer", someDigest + " app_1.bin\n", fault.MetaSyntax},
		{"tab", someDigest + "\t\tapp\n", fault.MetaSyntax},
		{"no name", someDigest + "  \n", fault.MetaSyntax},
		{"digest only", someDigest + "\n", fault.MetaSyntax},
		{"name before digest", "app_1.bin  " + someDigest + "\n", fault.MetaSyntax},
		{"escaped by sha256sum", "\\" + someDigest + "  a\\nb\n", fault.MetaSyntax},
		{"BSD style", "SHA256 (app) = " + someDigest + "\n", fault.MetaSyntax},
		{"twice", line("a") + line("b") + line("a"), fault.MetaSyntax},
		{"twice, other mark", line("a") + someDigest + " *a\n", fault.MetaSyntax},
		{"parent", line("../a"), fault.MetaSyntax},
		{"absolute", line("/etc/passwd"), fault.MetaSyntax},
		{"subdirectory", line("sub/a"), fault.MetaSyntax},
		{"backslash", line(`..\a`), fault.MetaSyntax},
		{"dot", line("."), fault.MetaSyntax},
		{"dots", line(".."), fault.MetaSyntax},
		{"NUL", line("a\x00b"), fault.MetaSyntax},
		{"carriage return", someDigest + "  a\r\n", fault.MetaSyntax},
		{"escape sequence", line("a\x1b[31m"), fault.MetaSyntax},
		{"right-to-left override", line("a\u202egnp.exe"), fault.MetaSyntax},
		{"no-break space", line("a\u00a0b"), fault.MetaSyntax},
		{"not UTF-8", line("a\xff"), fault.MetaSyntax},
		{"name of 256 bytes", line(strings.Repeat("x", 256)), fault.MetaSyntax},
		{"line of a megabyte", line(strings.Repeat("x", 1<<20)), fault.MetaSyntax},
		{"too many lines", many(manifestLinesMax + 1), fault.MetaTooLarge},
		{"too many bytes", strings.Repeat("x", manifestMax+1), fault.MetaTooLarge},
		{"JSON", `{"version":"1"}`, fault.MetaSyntax},
		{"no last day", line("BEST-BEFORE-"), fault.MetaSyntax},
		{"no such day", line("BEST-BEFORE-2027-02-29"), fault.MetaSyntax},
		{"a last day and more", line("BEST-BEFORE-2027-02-28.txt"), fault.MetaSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parseManifest([]byte(c.raw))
			if fault.CodeOf(err) != c.code || m.entries != nil {
				t.Fatalf("%d entries, %v; want %s", len(m.entries), err, c.code)
			}
			if text := err.Error(); len(text) > 500 || strings.ContainsAny(text, "\n\r\x00\x1b") || strings.Contains(text, "\u202e") {
				t.Errorf("error is not fit for a log: %.300q", text)
			}
		})
	}
	if _, err := parseManifest([]byte(many(manifestLinesMax))); err != nil {
		t.Errorf("as many lines as may be: %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(someDigest + "  app_1.bin\n"))
	f.Add([]byte(someDigest + " *app_1.bin\n" + someDigest + "  b\n"))
	f.Add([]byte(someDigest + "  ../x\n"))
	f.Add([]byte(someDigest + "  BEST-BEFORE-2027-01-31\n"))
	f.Add([]byte("<html>"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err != nil {
			if m.entries != nil || fault.CodeOf(err) == "" {
				t.Fatalf("%d entries with %v", len(m.entries), err)
			}
			return
		}
		// What was let through says all that was there.
		var again bytes.Buffer
		seen := map[string]bool{}
		for _, e := range m.entries {
			if strings.ContainsAny(e.name, "/\\\x00\n\r\x1b") || e.name == "." || e.name == ".." || e.name == "" || len(e.name) > 255 || seen[e.name] {
				t.Fatalf("let the name %q through", e.name)
			}
			seen[e.name] = true
			fmt.Fprintf(&again, "%x  %s\n", e.digest, e.name)
		}
		if bytes.Count(raw, []byte("\n")) > len(m.entries) {
			t.Fatalf("%d entries from %q", len(m.entries), raw)
		}
		if twice, err := parseManifest(again.Bytes()); err != nil || len(twice.entries) != len(m.entries) {
			t.Fatalf("written out and read again: %d entries, %v", len(twice.entries), err)
		}
	})
}
