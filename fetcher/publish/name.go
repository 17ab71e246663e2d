package publish

import (
	"fmt"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher"
)

// archives are the ends of names that say what a file is; the version stands
// before them.
func archives() []string {
	return []string{".tar.gz", ".tar.zst", ".tar.xz", ".tgz", ".txz", ".tzst", ".tar", ".gz", ".zst", ".xz"}
}

// Name is what a file is published as, and the pattern that finds it: hello as
// 2.0.0 becomes hello_2.0.0 and hello_@v, hello.tar.zst becomes
// hello_2.0.0.tar.zst. A name that has the version in it stays.
func Name(file, version string) (name, pattern string, err error) {
	before, after, found := strings.Cut(file, version)
	if !found {
		before, after = file, ""
		for _, end := range archives() {
			if stem, ok := strings.CutSuffix(file, end); ok && stem != "" {
				before, after = stem, end
				break
			}
		}
		before += "_"
	}
	name, pattern = before+version+after, before+"@v"+after
	p, err := fetcher.ParsePattern(pattern)
	if err != nil {
		return "", "", &advised{fmt.Errorf("name %q makes no pattern: %w", file, err), "give the file another name"}
	}
	if v, ok := p.Match(name); !ok || string(v) != version {
		return "", "", &advised{fmt.Errorf("a host would not read %s out of %q", version, name), "give the file another name"}
	}
	if strings.HasPrefix(name, manifestName) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, bestBefore) {
		return "", "", fmt.Errorf("%q means something else in such a directory", name)
	}
	return name, pattern, nil
}
