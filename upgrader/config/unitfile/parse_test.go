package unitfile

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseProblems(t *testing.T) {
	tests := []struct {
		name, in string
		line     int
		want     string
	}{
		{"no equals sign", "[A]\nx\n", 2, `"x" has no =`},
		{"no key", "[A]\n = x\n", 2, "no key before the ="},
		{"before any section", "A=b\n", 1, "before any section header"},
		{"open header", "\n[A\n", 2, "does not end in ]"},
		{"comment behind a header", "[A] # x]y\n", 1, "does not end in ]"},
		{"quote in a header", "[A\"]\n", 1, "holds a quote"},
		{"control character in a header", "[A\x01]\n", 1, "control character"},
		{"not UTF-8", "[A]\nB=\xff\n", 2, "not valid UTF-8"},
		{"the first line of a long one", "[A]\nB\\\n\\\nC\n", 2, "has no ="},
		{"too large", "[A]\n" + strings.Repeat("#\n", MaxSize/2), 1, "at most 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Parse([]byte(tt.in))
			if len(problems) != 1 {
				t.Fatalf("%d problems, want 1: %v", len(problems), problems)
			}
			if p := problems[0]; p.Line != tt.line || !strings.Contains(p.Message, tt.want) {
				t.Errorf("got line %d %q, want line %d with %q", p.Line, p.Message, tt.line, tt.want)
			}
		})
	}
}

func TestParseGoesOnAfterAProblem(t *testing.T) {
	f, problems := Parse([]byte("[A]\nx\nB=1\n[C\nD=2\n[A]\nE=3\n"))
	if len(problems) != 2 {
		t.Errorf("problems %v, want one for x and one for the header", problems)
	}
	if got, want := f.String(), "[A]\nB=1\n\n[A]\nE=3\n"; got != want {
		t.Errorf("read %q, want %q: what follows a bad header belongs to nobody", got, want)
	}
}

func TestParseBoundsItsProblems(t *testing.T) {
	_, problems := Parse([]byte("[A]\n" + strings.Repeat("x\n", 1000)))
	if len(problems) != maxProblems+1 {
		t.Errorf("%d problems, want %d and a last one that says so", len(problems), maxProblems)
	}
}

func TestParseLines(t *testing.T) {
	f, _ := Parse([]byte("# head\n\n[A]\nB=1\\\n# in between\n 2\nC=3\\"))
	a := f.Sections[0].Assignments
	if f.Sections[0].Line != 3 || a[0].Line != 4 || a[0].EndLine != 6 || a[1].Line != 7 || a[1].EndLine != 7 {
		t.Errorf("lines are %+v", f)
	}
}

func FuzzParse(f *testing.F) {
	for _, in := range parseInputs {
		f.Add([]byte("[Service]\n" + in))
	}
	f.Add([]byte("\uFEFF#x=1\n[A]\n\\\n#b\n=c"))
	f.Fuzz(func(t *testing.T, in []byte) {
		once, problems := Parse(in)
		for _, p := range problems {
			if p.Line < 1 || !utf8.ValidString(p.Message) || strings.ContainsAny(p.Message+p.Hint, "\n\r\x00") {
				t.Errorf("problem %+v is not one line of text", p)
			}
		}
		for _, s := range once.Sections {
			for _, a := range s.Assignments {
				if a.Key == "" || a.Line < 1 || a.EndLine < a.Line || !utf8.ValidString(a.Key+a.Value) {
					t.Errorf("assignment %+v", a)
				}
			}
		}
		// What was read, printed, reads the same and without a problem.
		text := once.String()
		if len(text) > MaxSize {
			return
		}
		twice, problems := Parse([]byte(text))
		if len(problems) > 0 {
			t.Fatalf("%q is printed as %q, which has problems: %v", in, text, problems)
		}
		if again := twice.String(); again != text {
			t.Fatalf("%q is printed as %q, and that as %q", in, text, again)
		}
		if len(once.Sections) != len(twice.Sections) {
			t.Fatalf("%d sections become %d", len(once.Sections), len(twice.Sections))
		}
		for i, s := range once.Sections {
			if s.Name != twice.Sections[i].Name || len(s.Assignments) != len(twice.Sections[i].Assignments) {
				t.Fatalf("section %+v becomes %+v", s, twice.Sections[i])
			}
			for j, a := range s.Assignments {
				if b := twice.Sections[i].Assignments[j]; a.Key != b.Key || a.Value != b.Value {
					t.Fatalf("%+v becomes %+v", a, b)
				}
			}
		}
	})
}
