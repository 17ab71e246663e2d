package unitfile

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64
	}{
		{"0", 0}, {"512", 512}, {"1K", 1024}, {"1.5G", 3 << 29}, {"1G 512M", 3 << 29}, {"1M 1", 1<<20 + 1},
		{" 7E ", 7 << 60}, {"1B", 1}, {"9223372036854775807", math.MaxInt64},
	}
	for _, tt := range tests {
		if got, err := Size(tt.in); err != nil || got != tt.want {
			t.Errorf("Size(%q) is %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "8E", "7E 1023P 2048T", "9223372036854775808", "7E 9223372036854775807"} {
		if got, err := Size(in); err == nil {
			t.Errorf("Size(%q) is %d, want an error", in, got)
		}
	}
}

func TestTimeSpanRange(t *testing.T) {
	if d, err := TimeSpan("9223372036854775us"); err != nil || d != 9223372036854775*time.Microsecond {
		t.Errorf("the longest span is %v, %v", d, err)
	}
	for _, in := range []string{"9223372036854776us", "293y", "292y 292y", "9223372036854775807h"} {
		if _, err := TimeSpan(in); !errors.Is(err, errRange) {
			t.Errorf("TimeSpan(%q) says %v, want %v", in, err, errRange)
		}
	}
	if _, err := TimeSpan("infinity"); !errors.Is(err, ErrInfinity) {
		t.Errorf("infinity says %v", err)
	}
}

func TestBool(t *testing.T) {
	for in, want := range map[string]bool{
		"1": true, "yes": true, "Y": true, "TRUE": true, "t": true, "on": true,
		"0": false, "no": false, "n": false, "False": false, "f": false, "OFF": false,
	} {
		if got, err := Bool(in); err != nil || got != want {
			t.Errorf("Bool(%q) is %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "maybe", " yes", "10", "01"} {
		if got, err := Bool(in); err == nil {
			t.Errorf("Bool(%q) is %v, want an error", in, got)
		}
	}
}

func TestExpand(t *testing.T) {
	lookup := func(name string) (string, error) {
		switch name {
		case "a":
			return "%b", nil
		case "{long}":
			return "%{b}", nil
		}
		return "", fmt.Errorf("no %%%s here", name)
	}
	tests := []struct{ in, want, wantErr string }{
		{"plain", "plain", ""},
		{"%%", "%", ""},
		{"%%a", "%a", ""},
		{"<%a>", "<%b>", ""}, // what is put in is not expanded again
		{"%a%a%%", "%b%b%", ""},
		{"@v", "@v", ""},
		{"%", "", "at the end"},
		{"%%%", "", "at the end"},
		{"%z", "", "no %z here"},
		{"<%{long}>%{long}%a", "<%{b}>%{b}%b", ""},
		{"%%{long}", "%{long}", ""},
		{"{long}", "{long}", ""},
		{"%{a}", "", "no %{a} here"},
		{"%{}", "", "no %{} here"},
		{"%{long", "", "has no }"},
	}
	for _, tt := range tests {
		got, err := Expand(tt.in, lookup)
		if got != tt.want || fmt.Sprint(err) != tt.wantErr && (err == nil || tt.wantErr == "" || !strings.Contains(err.Error(), tt.wantErr)) && (err != nil || tt.wantErr != "") {
			t.Errorf("Expand(%q) is %q, %v; want %q, %q", tt.in, got, err, tt.want, tt.wantErr)
		}
	}
}

func TestUnitName(t *testing.T) {
	tests := []struct {
		in   string
		want UnitName
	}{
		{"a.service", UnitName{Prefix: "a", Type: "service"}},
		{"a@.service", UnitName{Prefix: "a", Type: "service", At: true}},
		{"a@b@c.socket", UnitName{Prefix: "a", Instance: "b@c", Type: "socket", At: true}},
		{"a.service.service", UnitName{Prefix: "a.service", Type: "service"}},
	}
	for _, tt := range tests {
		if got, err := ParseUnitName(tt.in); err != nil || got != tt.want {
			t.Errorf("ParseUnitName(%q) is %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "a b.service", "a.service\n", "a.service/../x", "a\x00.service", "../a.service"} {
		if got, err := ParseUnitName(in); err == nil {
			t.Errorf("ParseUnitName(%q) is %+v, want an error", in, got)
		}
	}
}

func TestEscapeUnit(t *testing.T) {
	// As systemd-escape prints it.
	if got, want := EscapeUnit(`.a-b\c/d é:_`), `\x2ea\x2db\x5cc-d\x20\xc3\xa9:_`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQuoteCutsLongText(t *testing.T) {
	if got := Quote(strings.Repeat("é", 1000)); len(got) > 100 || !strings.HasSuffix(got, `é"…`) {
		t.Errorf("got %s", got)
	}
}

func FuzzWords(f *testing.F) {
	for _, in := range wordInputs {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		words, err := Words(in)
		if err != nil {
			return
		}
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = QuoteWord(w)
		}
		again, err := Words(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q is %q, quoted %q, and that is %q, %v", in, words, quoted, again, err)
		}
	})
}

func FuzzTimeSpan(f *testing.F) {
	for _, in := range spanInputs {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		d, err := TimeSpan(in)
		if err != nil {
			return
		}
		if d < 0 || d%time.Microsecond != 0 {
			t.Errorf("TimeSpan(%q) is %v", in, d)
		}
		if again, err := TimeSpan(fmt.Sprintf("%dus", d/time.Microsecond)); err != nil || again != d {
			t.Errorf("TimeSpan(%q) is %v, and that reads as %v, %v", in, d, again, err)
		}
	})
}

func FuzzSize(f *testing.F) {
	for _, in := range sizeInputs {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		n, err := Size(in)
		if err != nil {
			return
		}
		if again, err := Size(fmt.Sprint(n)); err != nil || n < 0 || again != n {
			t.Errorf("Size(%q) is %d, and that reads as %d, %v", in, n, again, err)
		}
	})
}

func FuzzUnitName(f *testing.F) {
	for _, in := range unitInputs {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if escaped := EscapeUnit(in) + ".service"; in != "" && len(escaped) <= unitNameMax {
			if _, err := ParseUnitName(escaped); err != nil {
				t.Errorf("%q escapes to %q: %v", in, escaped, err)
			}
		}
		if _, err := ParseUnitName(in); err == nil && strings.ContainsAny(in, "/ \n\x00$") {
			t.Errorf("%q is taken for a unit name", in)
		}
	})
}
