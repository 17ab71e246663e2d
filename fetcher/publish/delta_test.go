package publish

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/fetcher"
)

// program is a version of one: most of it is as it was in the last.
func program(version int) []byte {
	b := make([]byte, 150_000)
	rand.NewChaCha8([32]byte{}).Read(b)
	for i := range version {
		copy(b[i*1000:], fmt.Sprintf("this was changed by version %d", i+1))
	}
	return b
}

// packed is a program as it is published under a name with this end.
func packed(t *testing.T, end string, content []byte) []byte {
	t.Helper()
	if strings.HasPrefix(end, ".tar") {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, f := range []struct {
			name string
			data []byte
		}{{"README", []byte("read me")}, {"bin/app", content}, {"share/motd", []byte("hello")}} {
			if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.data))}); err != nil {
				t.Fatal(err)
			}
			w.Write(f.data)
		}
		w.Close()
		content = b.Bytes()
	}
	tool := map[string]string{".gz": "gzip", ".zst": "zstd", ".xz": "xz", "": "cat", ".tar": "cat"}[filepath.Ext(end)]
	cmd := exec.Command(tool)
	if tool != "cat" {
		cmd.Args = append(cmd.Args, "-c")
	}
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fetchFrom is a host that has one file.
func (d *desk) fetchFrom(pattern string, base []byte) (*fetcher.Verified, []byte) {
	d.t.Helper()
	name := filepath.Join(d.t.TempDir(), "base")
	if err := os.WriteFile(name, base, 0o600); err != nil {
		d.t.Fatal(err)
	}
	f, err := host(d.o.Dir, pattern, d.o.Keys, func(context.Context, [][32]byte) (map[[32]byte]string, error) {
		return map[[32]byte]string{sha256.Sum256(base): name}, nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	l, err := f.Check(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	c, _ := l.Newest()
	v, err := f.Fetch(d.t.Context(), c, d.t.TempDir(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { v.Close() })
	content, err := io.ReadAll(v.File())
	if err != nil {
		d.t.Fatal(err)
	}
	return v, content
}

// TestDeltas has hosts of each older version come to the newest, by what Add makes
// of every kind of artifact.
func TestDeltas(t *testing.T) {
	for _, end := range []string{"", ".gz", ".zst", ".xz", ".tar", ".tar.zst"} {
		for _, tool := range []Deltas{DeltasBSDiff, DeltasZstd, DeltasAuto} {
			if tool == DeltasAuto && end != ".zst" {
				continue
			}
			t.Run(string(tool)+end, func(t *testing.T) {
				d := newDesk(t)
				d.file = filepath.Join(filepath.Dir(d.file), "app"+end)
				d.o.Artifacts = []string{d.file}
				d.o.Deltas, d.o.DeltasFrom = tool, 1
				for v := 1; v <= 3; v++ {
					r := d.mustAdd(fmt.Sprint(v), string(packed(t, end, program(v))))
					want := 3
					if v == 1 {
						want = 1
					}
					if len(r.Added) != want || len(r.LeftOut) > 0 {
						t.Errorf("version %d: %+v", v, r)
					}
				}
				patch := map[Deltas]string{DeltasBSDiff: ".bsdiff", DeltasZstd: ".zstd-patch", DeltasAuto: ".bsdiff"}[tool]
				for _, name := range []string{"app_3" + end + ".deltas", "app_3" + end + ".from-2" + patch, "app_2" + end + ".from-1" + patch} {
					if _, ok := d.content()[name]; !ok {
						t.Errorf("%s is not published", name)
					}
				}
				plain, _ := strings.CutSuffix("app_3"+end, map[bool]string{true: filepath.Ext(end), false: ""}[end != ".tar"])
				for base, patches := range []int{0, 2, 1, 0} {
					if base == 1 && strings.HasPrefix(end, ".tar") {
						continue // a patch makes the archive, and the next one starts from the program
					}
					v, got := d.fetchFrom("app_@v"+end, program(base))
					want := packed(t, strings.TrimSuffix(end, ".zst"), program(3))
					switch {
					case base == 3 && strings.HasPrefix(end, ".tar"): // its program is here, but not what is around
						continue
					case base == 0: // nothing leads there
						want = []byte(d.content()["app_3"+end])
						if v.Name() != "app_3"+end {
							t.Errorf("it is called %s", v.Name())
						}
					case !strings.HasPrefix(end, ".tar"):
						want = program(3)
						fallthrough
					default:
						if v.Name() != plain {
							t.Errorf("it is called %s, want %s", v.Name(), plain)
						}
					}
					if v.Patches() != patches || !bytes.Equal(got, want) {
						t.Errorf("from %d: %d patches, want %d", base, v.Patches(), patches)
					}
				}
				before := d.content()
				if r := d.mustAdd("3", string(packed(t, end, program(3)))); !r.Unchanged || len(d.content()) != len(before) {
					t.Errorf("the same again: %+v", r)
				}
				out, err := exec.Command("sh", "-c", `cd "$1" && sha256sum -c SHA256SUMS`, "-", d.o.Dir).CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

func TestDeltasFromSeveral(t *testing.T) {
	d := newDesk(t)
	for v := 1; v <= 5; v++ {
		d.mustAdd(fmt.Sprint(v), string(program(v)))
	}
	// Made later, for what is there already, and not from what lies damaged.
	d.o.Deltas = DeltasZstd
	if err := os.WriteFile(filepath.Join(d.o.Dir, "app_4"), []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := d.mustAdd("5", string(program(5)))
	if want := []string{"app_5.deltas", "app_5.from-3.zstd-patch", "app_5.from-2.zstd-patch"}; !slices.Equal(r.Added, want) {
		t.Errorf("added %q, want %q", r.Added, want)
	}
	if entries, err := filepath.Glob(filepath.Join(d.o.Dir, ".*")); err != nil || len(entries) > 0 {
		t.Errorf("left %q, %v", entries, err)
	}
}

func TestDeltasThatDoNotPay(t *testing.T) {
	d := newDesk(t)
	d.o.Deltas = DeltasZstd
	noise := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	d.mustAdd("1", string(program(1)))
	r := d.mustAdd("2", string(noise))
	if len(r.Added) != 1 || len(r.LeftOut) != 1 || !strings.Contains(r.LeftOut[0], "app_2.from-1.zstd-patch: ") {
		t.Errorf("%+v", r)
	}
	if got := d.newest(); got != "2" {
		t.Errorf("a host takes %s", got)
	}
}

func TestContentName(t *testing.T) {
	for name, want := range map[string]string{
		"app_1": "app_1", "app_1.zst": "app_1", "app_1.tar": "app_1.tar", "app_1.tar.xz": "app_1.tar", "app_1.tgz": "app_1.tar",
		"app_1.gz.zst": "", "app_1.tgz.xz": "",
	} {
		if got, err := contentName(name); got != want || (err != nil) != (want == "") {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestDeltasRefused(t *testing.T) {
	for _, c := range []struct {
		name, file, path string
		deltas           Deltas
		from             int
		says             string
	}{
		{"no such tool", "app", "", "courgette", 0, `no tool is called "courgette"`},
		{"tool not installed", "app", "/nonexistent", DeltasBSDiff, 0, "bsdiff is not installed"},
		{"no tool installed", "app", "/nonexistent", DeltasAuto, 0, "is not installed"},
		{"from too many", "app", "", DeltasAuto, DeltasFromMax + 1, "want 1 to"},
		{"not what its name says", "app.gz", "", DeltasAuto, 0, "invalid header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.file = filepath.Join(filepath.Dir(d.file), c.file)
			d.o.Artifacts = []string{d.file}
			d.mustAdd("1", string(program(1)))
			before := d.content()
			d.o.Deltas, d.o.DeltasFrom = c.deltas, c.from
			if c.path != "" {
				t.Setenv("PATH", c.path)
			}
			if r, err := d.add("2", string(program(2))); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v; want it to say %q", r, err, c.says)
			}
			if now := d.content(); len(now) != len(before) {
				t.Errorf("it left %d files, %d were there", len(now), len(before))
			}
		})
	}
}
