package adopt

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/upgraderd/upgraderd/activation/overseer/origin"
)

// originOf finds where the fetcher of a program of activation/overseer looks, nil if
// the control group has none. The program says so itself, in a memory file: it is not
// run for that.
func originOf(proc, cgroups, group string) *origin.Origin {
	if group == "" {
		return nil
	}
	for _, pid := range processes(filepath.Join(cgroups, group)) {
		dir := filepath.Join(proc, pid, "fd")
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(maxFiles)
		f.Close()
		for _, name := range names {
			name = filepath.Join(dir, name)
			if to, err := os.Readlink(name); err != nil || to != origin.Link {
				continue
			}
			if o, err := origin.Read(name); err == nil {
				return &o
			}
		}
	}
	return nil
}

// source is what a .upgrade file says of where releases come from.
type source struct {
	path     string
	patterns []string
	oneFile  bool     // Manifest=no
	more     []string // further lines
}

// fetches says the same as the fetcher of the program, as far as that can be said.
// What it trusts is not taken from it: who signs releases is for the operator to
// say.
func (a *Adoption) fetches(o origin.Origin) (s source) {
	if !sound(o) {
		a.remark("what it says of its fetcher is of no use; give the source as --source=")
		return source{}
	}
	switch o.Kind {
	case "file":
		s.path = escape(path.Dir(o.Path))
		a.remark("its fetcher follows the file %s; here a release has its version in its name, in %s", o.Path, path.Dir(o.Path))
	case "http":
		s.path, s.oneFile = escape(o.Path), true
		if o.Path == "" {
			a.remark("its fetcher makes its URL by a function: give it as --source=; %%{goos} and %%{goarch} are this host's, as runtime.GOOS and GOARCH were")
			return source{}
		}
		a.remark("its fetcher follows the file %s, and so does this: as its signature says, or with --unsigned as the server's date does", o.Path)
	case "s3":
		s.path = escape(path.Dir(strings.TrimPrefix(o.Path, "s3://")))
		s.path = "s3://" + s.path
		a.remark("its fetcher follows the object %s; here a release has its version in its name, beside SHA256SUMS", o.Path)
	case "github":
		s.path = escape(o.Path)
		s.patterns = []string{escape(path.Base(o.Path)) + "_@v_%{goos}_%{goarch}"}
		a.remark("its fetcher takes the asset of the latest release that fits; say with --pattern= how these are called")
	case "function":
		a.remark("its fetcher is a function, which cannot be asked where it looks: say so by --source=, which may be exec:/COMMAND")
		return source{}
	}
	for _, l := range [][2]string{{"Region", o.Region}, {"Endpoint", o.Endpoint}} {
		if l[1] != "" {
			s.more = append(s.more, l[0]+"="+escape(l[1]))
		}
	}
	if o.Kind != "file" && o.Interval >= time.Second {
		s.more = append(s.more, fmt.Sprintf("PollIntervalSec=%s", told(o.Interval)))
	}
	if o.Authorized {
		a.remark("its fetcher shows a token or a password, which is not taken from it: TokenFile=, LoginFile= or CredentialFile= in the .upgrade file")
	}
	if o.Keys > 0 {
		a.remark("its fetcher trusts %d keys of its own; say with --key= which of them is to be trusted here", o.Keys)
	}
	if o.PreUpgrade {
		a.remark("its PreUpgrade is not asked any more: Check= is a command for that")
	}
	if o.NoRestartAfterFetch {
		a.remark("it does not restart by itself after a fetch; Swap=none in the .upgrade file is the same")
	}
	return s
}

// sound refuses what could mean something else in a file than its kind: a command, a
// further line. Nobody has looked at it yet, and it is the word of a service.
func sound(o origin.Origin) bool {
	begins, known := map[string][]string{
		"file": {"/"}, "http": {"http://", "https://"}, "s3": {"s3://"}, "github": {"github://"}, "function": {""},
	}[o.Kind]
	begins = append(begins, "") // a function may make the URL
	fits := slices.ContainsFunc(begins, func(b string) bool { return strings.HasPrefix(o.Path, b) && (b != "" || o.Path == "") })
	return known && fits && !strings.ContainsFunc(o.Path+o.Region+o.Endpoint, func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.IsSpace(r) || strings.ContainsRune("\\\"'", r)
	})
}
