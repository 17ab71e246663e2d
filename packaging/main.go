// Command packaging makes the .deb and the .rpm of this module, by way of nfpm,
// with the files and at the places that upgraderd install has: there is one list,
// in package units. Two builds of one commit are equal bit by bit, wherever and
// whenever they are made.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/upgraderd/upgraderd/units"
)

func main() {
	var o options
	flag.StringVar(&o.out, "out", "dist", "put the packages into this `directory`")
	flag.StringVar(&o.version, "version", "", "the package's `version` (default: that of the program)")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "build for this `GOARCH`")
	flag.StringVar(&o.nfpm, "nfpm", "nfpm", "the `program` that writes packages")
	flag.StringVar(&o.formats, "formats", "deb rpm", "the `kinds` of packages")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := o.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "packaging: %v\n", err)
		os.Exit(1)
	}
}

type options struct{ out, version, arch, nfpm, formats string }

// run has the root of the module as its working directory.
func (o options) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "upgraderd-packaging-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	program := filepath.Join(dir, "upgraderd")
	info, err := o.build(ctx, program)
	if err != nil {
		return err
	}
	if o.version == "" {
		if o.version, err = packageVersion(info.Main.Version); err != nil {
			return err
		}
	}
	made, err := builtFrom(info)
	if err != nil {
		return err
	}

	s := stage{root: filepath.Join(dir, "root")}
	if err := os.Mkdir(s.root, 0o755); err != nil {
		return err
	}
	if _, err := units.Install(s.root, units.Options{Program: program}); err != nil {
		return err
	}
	if err := s.document(ctx, o.version, made); err != nil {
		return err
	}
	contents, err := s.contents(made)
	if err != nil {
		return err
	}
	config, err := os.ReadFile("packaging/nfpm.yaml")
	if err != nil {
		return err
	}
	list, err := json.Marshal(contents) // which is YAML, too
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "nfpm.yaml")
	if err := os.WriteFile(file, append(append(config, "\ncontents: "...), list...), 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for _, format := range strings.Fields(o.formats) {
		err := command(ctx, []string{"ARCH=" + o.arch, "VERSION=" + o.version, "SOURCE_DATE_EPOCH=" + strconv.FormatInt(made.Unix(), 10)},
			o.nfpm, "package", "--config", file, "--packager", format, "--target", o.out)
		if err != nil {
			return err
		}
	}
	return nil
}

// build makes the program as packages have it, and tells what is stamped into it.
func (o options) build(ctx context.Context, program string) (*debug.BuildInfo, error) {
	// The commit is stamped in from a checkout that git is willing to read.
	stamp := exec.CommandContext(ctx, "git", "rev-parse", "HEAD").Run() == nil
	if err := command(ctx, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + o.arch},
		"go", "build", "-trimpath", "-buildvcs="+strconv.FormatBool(stamp), "-ldflags", "-s -w", "-o", program, "./cmd/upgraderd"); err != nil {
		return nil, err
	}
	return buildinfo.ReadFile(program)
}

// packageVersion is a version of Go's as packages have it: what stands behind a
// dash comes before the version, and dpkg and rpm say so by a tilde.
func packageVersion(v string) (string, error) {
	v, ok := strings.CutPrefix(v, "v")
	if !ok {
		return "", errors.New("the program has no version\nBuild from a checkout, or name one with -version")
	}
	return strings.ReplaceAll(v, "-", "~"), nil
}

// builtFrom is the time that everything in the packages bears: SOURCE_DATE_EPOCH,
// or that of the commit.
func builtFrom(info *debug.BuildInfo) (time.Time, error) {
	if given := os.Getenv("SOURCE_DATE_EPOCH"); given != "" {
		seconds, err := strconv.ParseInt(given, 10, 64)
		if err != nil || seconds < 0 {
			return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970", given)
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.time" })
	if i < 0 {
		return time.Time{}, errors.New("the program has no time\nBuild from a checkout, or set SOURCE_DATE_EPOCH")
	}
	return time.Parse(time.RFC3339, info.Settings[i].Value)
}

// command runs a program, and shows what it says if it fails.
func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", name, err, out)
	}
	return nil
}

// stage is a directory laid out as the host is.
type stage struct{ root string }

const (
	docDir      = "usr/share/doc/upgraderd"
	modulesFile = docDir + "/third-party.gz"
)

// document adds what a package has and an installed program has not.
func (s stage) document(ctx context.Context, version string, made time.Time) error {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		return err
	}
	for _, page := range append(pages, "README.md", "SECURITY.md") {
		if err := s.copy(page, filepath.Join(docDir, filepath.Base(page))); err != nil {
			return err
		}
	}
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	entry := fmt.Sprintf("upgraderd (%s-1) unstable; urgency=medium\n\n  * Built from the sources; what is new stands in changelog.gz.\n\n"+
		" -- upgraderd maintainers <upgraderd@users.noreply.github.com>  %s\n", version, made.Format(time.RFC1123Z))
	ours, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	copyright := fmt.Sprintf("upgraderd, https://github.com/upgraderd/upgraderd\n\n%s\nThe modules that are linked into the program have licences of their own. They stand\n"+
		"in /%s; the Apache License stands in\n/usr/share/common-licenses/Apache-2.0, too.\n", ours, modulesFile)
	theirs, err := licences(ctx)
	return errors.Join(err,
		s.compressed(filepath.Join(docDir, "changelog.gz"), changes),
		s.compressed(filepath.Join(docDir, "changelog.Debian.gz"), []byte(entry)),
		s.write(filepath.Join(docDir, "copyright"), []byte(copyright)),
		s.compressed(modulesFile, theirs),
		s.copy("packaging/deb/lintian-overrides", "usr/share/lintian/overrides/upgraderd"))
}

// licences are those of the modules that are linked into the program, which want to
// be told wherever it goes.
func licences(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}", "./cmd/upgraderd")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	modules := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(modules)
	var b bytes.Buffer
	for _, module := range slices.Compact(modules) {
		name, dir, _ := strings.Cut(module, "\t")
		files, err := filepath.Glob(filepath.Join(dir, "LICEN[CS]E*"))
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("module %s: no licence in %s", name, dir)
		}
		fmt.Fprintf(&b, "%s\nThe program contains %s:\n\n", strings.Repeat("-", 78), name)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			b.Write(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
		}
	}
	return b.Bytes(), nil
}

func (s stage) copy(from, name string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return s.write(name, data)
}

func (s stage) compressed(name string, data []byte) error {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	return errors.Join(z.Close(), s.write(name, b.Bytes()))
}

func (s stage) write(name string, data []byte) error {
	name = filepath.Join(s.root, name)
	return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, 0o644))
}

// content is a file of a package, as nfpm calls it.
type content struct {
	Source      string `json:"src,omitempty"`
	Destination string `json:"dst"`
	Packager    string `json:"packager,omitempty"` // deb or rpm; empty: both
	Type        string `json:"type,omitempty"`     // dir; empty: a file
	Info        struct {
		Owner string    `json:"owner"`
		Group string    `json:"group"`
		Mode  uint32    `json:"mode"`
		MTime time.Time `json:"mtime"`
	} `json:"file_info"`
}

func (s stage) contents(made time.Time) ([]content, error) {
	var all []content
	err := filepath.WalkDir(s.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		c := content{Source: name, Destination: strings.TrimPrefix(name, s.root)}
		c.Info.Owner, c.Info.Group, c.Info.MTime = "root", "root", made
		c.Info.Mode = uint32(0o644 | info.Mode().Perm()&0o111) // whatever the umask is
		all = append(all, c.places()...)
		return nil
	})
	return append(all, ownDirs(all, made)...), err
}

// ownDirs are the directories that only this package has files in. dpkg removes those
// that are empty; rpm removes those that a package names.
func ownDirs(all []content, made time.Time) []content {
	names := map[string]bool{}
	for _, c := range all {
		for dir := path.Dir(c.Destination); c.Packager != "deb" && strings.Contains(dir+"/", "/upgraderd/"); dir = path.Dir(dir) {
			names[dir] = true
		}
	}
	var dirs []content
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c := content{Destination: name, Packager: "rpm", Type: "dir"}
		c.Info.Owner, c.Info.Group, c.Info.Mode, c.Info.MTime = "root", "root", 0o755, made
		dirs = append(dirs, c)
	}
	return dirs
}

// places are where the kinds of hosts have a file.
func (c content) places() []content {
	deb, rpm := c, c
	deb.Packager, rpm.Packager = "deb", "rpm"
	switch {
	case strings.Contains(c.Destination, "/lintian/"), strings.HasSuffix(c.Destination, "/changelog.Debian.gz"):
		return []content{deb}
	case strings.HasSuffix(c.Destination, "/copyright"):
		rpm.Destination = "/usr/share/licenses/upgraderd/LICENSE"
		return []content{deb, rpm}
	case strings.Contains(c.Destination, "/zsh/"):
		rpm.Destination = strings.Replace(c.Destination, "vendor-completions", "site-functions", 1)
		return []content{deb, rpm}
	}
	return []content{c}
}
