package fetcher

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for _, good := range []string{"1", "1.4.2", "0", "2024.11.20", "1.0~rc1", "1.0^git20240101", "1.0-3.fc41", "v1_2+build.7", "a", strings.Repeat("9", 64)} {
		if v, err := ParseVersion(good); err != nil || string(v) != good {
			t.Errorf("ParseVersion(%q) = %q, %v", good, v, err)
		}
	}
	for _, bad := range []string{
		"", ".", "..", "../../etc", "-rf", "--help", "~1", "^1", "_1", "+1", "$(x)", "1;x", "1 2", "1/2", "1\n2", "1\x00", "1\u202e2",
		"1.０", "é1", "1%n", "1:2", "1\\2", "\xff", strings.Repeat("9", 65), strings.Repeat("9", 1_000_000),
	} {
		v, err := ParseVersion(bad)
		if err == nil {
			t.Errorf("ParseVersion(%.20q) = %q, want an error", bad, v)
			continue
		}
		if len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\x00\u202e") {
			t.Errorf("ParseVersion(%.20q): error is not fit for a log: %.300q", bad, err)
		}
	}
}

// ascending holds versions as UAPI.10 orders them, each newer than the one
// before it.
var ascending = []Version{
	"0~~a", "0~a", "0", "0-1", "0.a", "0.0", "1~rc1", "1~rc2", "1", "1-1", "1-2", "1^", "1^post", "1.a", "1.0~rc1", "1.0", "1.0.1", "1.2", "1.9", "1.10", "2", "10", "18446744073709551616",
}

func TestVersionCompare(t *testing.T) {
	for i, a := range ascending {
		for j, b := range ascending {
			if got := a.Compare(b); sign(got) != sign(i-j) {
				t.Errorf("%q.Compare(%q) = %d, want the sign of %d", a, b, got, i-j)
			}
		}
	}
	for _, pair := range [][2]Version{{"1.0", "1.00"}, {"01", "1"}, {"1_2", "1+2"}, {"1", "1_"}} {
		if got := pair[0].Compare(pair[1]); got != 0 {
			t.Errorf("%q.Compare(%q) = %d, want 0", pair[0], pair[1], got)
		}
	}
}

// TestVersionCompareAsSystemd puts hand-picked and random pairs to systemd's own
// comparison, which is what publishers and administrators see.
func TestVersionCompareAsSystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing: install systemd")
	}
	pairs := [][2]Version{{"1.0~rc1", "1.0"}, {"1_2", "12"}, {"1..2", "1.2"}, {"a", "A"}, {"1~", "1~~"}, {"1^2", "1.2"}, {"1-2", "1^2"}, {"1.-2", "1.2"}, {"1-~2", "1"}, {"1~_~2", "1~2"}}
	for i := 1; i < len(ascending); i++ {
		pairs = append(pairs, [2]Version{ascending[i-1], ascending[i]})
	}
	const alphabet = "0019ab.+~_^-"
	random := rand.New(rand.NewPCG(10, 20))
	for range 300 {
		spell := func() Version {
			b := []byte{"01ab"[random.IntN(4)]}
			for range random.IntN(6) {
				b = append(b, alphabet[random.IntN(len(alphabet))])
			}
			return Version(b)
		}
		pairs = append(pairs, [2]Version{spell(), spell()})
	}
	signs := map[string]int{"<": -1, "==": 0, ">": 1}
	for _, pair := range pairs {
		// Its exit status tells the order too (0 equal, 11 newer, 12 older).
		out, err := exec.Command(analyze, "compare-versions", string(pair[0]), string(pair[1])).Output()
		words := strings.Fields(string(out))
		if len(words) != 3 {
			t.Fatalf("systemd-analyze compare-versions %q %q: %q, %v", pair[0], pair[1], out, err)
		}
		if got, want := sign(pair[0].Compare(pair[1])), signs[words[1]]; got != want {
			t.Errorf("%q.Compare(%q) = %d, systemd says %q", pair[0], pair[1], got, words[1])
		}
	}
}

func FuzzVersion(f *testing.F) {
	for i, v := range ascending {
		f.Add(string(v), string(ascending[len(ascending)-1-i]))
	}
	f.Add("../x", "--help")
	f.Fuzz(func(t *testing.T, x, y string) {
		a, err := ParseVersion(x)
		if err != nil {
			if a != "" {
				t.Fatalf("refused %q but gave %q", x, a)
			}
			return
		}
		if strings.ContainsAny(x, "/\\%$ \n\x00") || x[0] == '-' || x[0] == '.' {
			t.Fatalf("accepted %q", x)
		}
		if a.Compare(a) != 0 {
			t.Fatalf("%q is not equal to itself", a)
		}
		b, err := ParseVersion(y)
		if err == nil && sign(a.Compare(b)) != -sign(b.Compare(a)) {
			t.Fatalf("%q and %q: %d and %d", a, b, a.Compare(b), b.Compare(a))
		}
	})
}

func ExampleVersion_Compare() {
	versions := []Version{"1.10", "1.2", "1.2~rc1", "1.2^hotfix"}
	slices.SortFunc(versions, Version.Compare)
	fmt.Println(versions)
	// Output: [1.2~rc1 1.2 1.2^hotfix 1.10]
}

func sign(n int) int { return max(-1, min(1, n)) }
