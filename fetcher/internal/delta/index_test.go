package delta

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func digest(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

func indexOf(patches ...Patch) Index {
	return Index{Artifact: "app_9.zst", ArtifactSize: 1000, Content: File{digest("9"), 5000}, ContentName: "app_9", Patches: patches}
}

// hop is a patch from one version to another.
func hop(from, to string, size int64) Patch {
	return Patch{Format: BSDiff, Base: digest(from), Result: File{digest(to), 5000}, Size: size, Name: "app_" + to + ".from-" + from + BSDiffEnd}
}

func TestIndex(t *testing.T) {
	x := indexOf(hop("8", "9", 10), Patch{Format: Zstd, Base: digest("7"), Result: File{digest("9"), 5000}, Size: 20, Name: "a name with spaces.zstd-patch"})
	got, err := ParseIndex(x.Bytes())
	if err != nil || !reflect.DeepEqual(got, x) {
		t.Errorf("%+v, %v; want %+v", got, err, x)
	}
	later := append(x.Bytes(), "xdelta 1 2 3\n"...)
	if got, err := ParseIndex(later); err != nil || !reflect.DeepEqual(got, x) {
		t.Errorf("with a line of a later format: %+v, %v", got, err)
	}
	good := string(x.Bytes())
	lines := strings.SplitAfter(good, "\n")
	for _, c := range []struct{ name, text, says string }{
		{"empty", "", "names the artifact"},
		{"no artifact", strings.Join(lines[1:], ""), "names the artifact"},
		{"no content", lines[0], "content"},
		{"two artifacts", good + lines[0], "twice"},
		{"two contents", good + lines[1], "twice"},
		{"size 0", strings.Replace(good, "artifact 1000", "artifact 0", 1), `"0" is not a size`},
		{"negative size", strings.Replace(good, "artifact 1000", "artifact -1", 1), `"-1" is not a size`},
		{"size beyond all", strings.Replace(good, "artifact 1000", "artifact 9223372036854775808", 1), "is not a size"},
		{"large size", strings.Replace(good, "artifact 1000", "artifact 9223372036854775807", 1), "is not a size"},
		{"no name", "artifact 1000 \n", "name is missing"},
		{"short digest", strings.Replace(good, fmt.Sprintf("%x", digest("8")), "abcd", 1), "is not a SHA-256"},
		{"no digest", strings.Replace(good, fmt.Sprintf("%x", digest("8")), strings.Repeat("z", 64), 1), "is not a SHA-256"},
		{"word alone", good + "bsdiff\n", "is not a SHA-256"},
		{"too many", good + strings.Repeat(lines[2], PatchesMax), "more than 256"},
		{"too long", good + strings.Repeat("x\n", IndexMax), "at most"},
		{"a page", "<html>\n", "names the artifact"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseIndex([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want it to say %q", err, c.says)
			}
		})
	}
}

func TestCheapest(t *testing.T) {
	long := []Patch{}
	for i := range ChainMax + 1 {
		long = append(long, hop(fmt.Sprint(9-ChainMax-1+i), fmt.Sprint(9-ChainMax+i), 1))
	}
	for _, c := range []struct {
		name    string
		patches []Patch
		here    []string
		limit   int64
		want    string // names of versions passed, "" for no way
	}{
		{"one step", []Patch{hop("8", "9", 10)}, []string{"8"}, 1000, "8 9"},
		{"not here", []Patch{hop("8", "9", 10)}, []string{"7"}, 1000, ""},
		{"as large as the file", []Patch{hop("8", "9", 10)}, []string{"8"}, 10, ""},
		{"two steps are cheaper", []Patch{hop("7", "9", 100), hop("7", "8", 10), hop("8", "9", 10)}, []string{"7"}, 1000, "7 8 9"},
		{"one step is cheaper", []Patch{hop("7", "9", 15), hop("7", "8", 10), hop("8", "9", 10)}, []string{"7"}, 1000, "7 9"},
		{"the nearer base", []Patch{hop("7", "8", 10), hop("8", "9", 10)}, []string{"7", "8"}, 1000, "8 9"},
		{"a chain too large", []Patch{hop("7", "8", 600), hop("8", "9", 600)}, []string{"7"}, 1000, ""},
		{"content is here", []Patch{hop("8", "9", 10)}, []string{"9", "8"}, 1000, "9"},
		{"in a circle", []Patch{hop("7", "8", 1), hop("8", "7", 1), hop("8", "8", 1), hop("9", "9", 1)}, []string{"7"}, 1000, ""},
		{"as long as may be", long[1:], []string{"1"}, 1000, "1 2 3 4 5 6 7 8 9"},
		{"longer than may be", long, []string{"0"}, 1000, ""},
		{"long, but nearer", long, []string{"0", "4"}, 1000, "4 5 6 7 8 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			here := map[[32]byte]string{}
			for _, v := range c.here {
				here[digest(v)] = v
			}
			chain, ok := indexOf(c.patches...).Cheapest(func(d [32]byte) bool { return here[d] != "" }, c.limit)
			got, size := "", int64(0)
			if ok {
				got = here[chain.From]
				for _, p := range chain.Patches {
					v, _, _ := strings.Cut(strings.TrimPrefix(p.Name, "app_"), ".")
					got, size = got+" "+v, size+p.Size
				}
			}
			if got != c.want || ok && size != chain.Size {
				t.Errorf("got %q of %d bytes, want %q", got, chain.Size, c.want)
			}
		})
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(indexOf(hop("8", "9", 10), hop("7", "9", 10)).Bytes())
	f.Add([]byte("artifact 1 a\ncontent " + strings.Repeat("0", 64) + " 1 b\nother\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := ParseIndex(raw)
		if err != nil {
			return
		}
		if again, err := ParseIndex(x.Bytes()); err != nil || !reflect.DeepEqual(again, x) {
			t.Errorf("%+v reads back as %+v, %v", x, again, err)
		}
		x.Cheapest(func([32]byte) bool { return true }, 1000)
		x.Cheapest(func([32]byte) bool { return false }, 1000)
	})
}
