package fetcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/signature"
)

// signatureMax leaves room for minisign's longest comments (8 KiB each), and for
// dozens of the other signatures.
const signatureMax = 64 << 10

// loadRing reads Key= and RevokedKey=.
func loadRing(o Options) (*signature.Ring, error) {
	keys, err := loadKeys(o.Keys)
	if err != nil {
		return nil, err
	}
	revoked, err := loadKeys(o.RevokedKeys)
	if err != nil {
		return nil, err
	}
	return signature.New(keys, revoked, o.Threshold)
}

// loadKeys reads entries: public keys themselves, or absolute names of files that
// hold some.
func loadKeys(entries []string) ([]signature.Key, error) {
	var keys []signature.Key
	for _, entry := range entries {
		text, origin := []byte(entry), fmt.Sprintf("key %.12q…", entry)
		if filepath.IsAbs(entry) {
			raw, err := readTrustFile(entry, signature.TextMax)
			if err != nil {
				return nil, fault.New(fault.ConfigTrust, fmt.Errorf("read key %s: %w", entry, err), "name a file that only root can write and that holds public keys")
			}
			text, origin = raw, "key file "+entry
		}
		more, err := signature.Parse(text)
		if err != nil {
			var known *Error
			if errors.As(err, &known) {
				return nil, fault.New(known.Code, fmt.Errorf("%s %w", origin, known.Err), known.Hint)
			}
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// readTrustFile refuses a file that somebody else could have changed, or that has
// more than most bytes.
func readTrustFile(name string, most int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("not a regular file")
	case st.Mode&0o022 != 0:
		return nil, fmt.Errorf("mode %04o: others can write it", st.Mode&0o7777)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return nil, fmt.Errorf("owned by user %d, want root or the daemon's own user", st.Uid)
	}
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("more than %d bytes", most)
	}
	return raw, nil
}

// signed is a signature file as it was last seen.
type signed struct {
	raw  []byte
	mark source.Mark
}

// verify tells who signed manifest, the bytes as they were received; what was
// parsed from them plays no part. It asks for one signature file after the other
// until enough of the trusted keys have signed, first for those that were there
// the last time. It gives those that it read now, and whether they are as they
// were. What has not changed is judged again all the same: a key may have
// expired meanwhile.
func (f *Fetcher) verify(ctx context.Context, m *mirror, manifest []byte, old map[string]signed) (by signature.Signed, now map[string]signed, same bool, err error) {
	files := f.ring.Files(manifestName)
	slices.SortStableFunc(files, func(a, b string) int { return known(old, b) - known(old, a) })
	count := f.ring.Count(manifestName, manifest, time.Now())
	now = map[string]signed{}
	for _, file := range files {
		if count.Enough() {
			break
		}
		s := old[file]
		if _, err := m.readInto(ctx, file, signatureMax, &s.raw, &s.mark); err != nil {
			switch fault.CodeOf(err) {
			case fault.NotFound:
			case fault.Denied, fault.MetaTooLarge:
				// Some servers say 403 for what is not there.
				count.Note(err)
			default:
				return by, nil, false, err
			}
			continue
		}
		if looksLikeWebPage(s.raw) {
			count.Note(webPage(file))
			continue
		}
		count.Add(file, s.raw)
		now[file] = s
	}
	by, err = count.Result()
	same = maps.EqualFunc(now, old, func(a, b signed) bool { return bytes.Equal(a.raw, b.raw) })
	return by, now, same, err
}

func known(files map[string]signed, file string) int {
	if _, ok := files[file]; ok {
		return 1
	}
	return 0
}

// looksLikeWebPage tells the answer of a captive portal or an error page sent
// with status 200. Neither a manifest nor a signature starts with "<".
func looksLikeWebPage(raw []byte) bool {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	return bytes.HasPrefix(bytes.TrimSpace(raw), []byte("<"))
}

func webPage(name string) error {
	return fault.Passing(fault.MetaNotSigned, fmt.Errorf("a web page came instead of %s", name), "check Path=, and whether a login page or a proxy stands before the source")
}
