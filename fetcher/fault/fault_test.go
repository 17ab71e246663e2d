package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		e    *Error
		want string
	}{
		{
			&Error{Code: Stalled, Target: "app", Op: "fetch app_1.2.zst", Source: "https://example.org/app", Err: errors.New("no progress for 30s"), Hint: "check the network"},
			"app: fetch app_1.2.zst from https://example.org/app: no progress for 30s [FETCH_STALLED]; check the network",
		},
		{&Error{Code: SigBad, Err: errors.New("x")}, "x [SIG_BAD]"},
		{&Error{Code: SigBad}, "[SIG_BAD]"},
		{&Error{Code: NoSpace, Target: "app", Op: "fetch x", Err: errors.New("full")}, "app: fetch x: full [FS_NOSPACE]"},
	} {
		if got := c.e.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestLocal(t *testing.T) {
	for errno, code := range map[syscall.Errno]Code{
		syscall.ENOSPC: NoSpace, syscall.EDQUOT: Quota, syscall.EROFS: ReadOnly, syscall.EMFILE: NoFiles, syscall.ENFILE: NoFiles, syscall.EIO: IO, syscall.EACCES: IO,
	} {
		e := Local(&fs.PathError{Op: "write", Path: "x", Err: errno})
		if e.Code != code || !e.Temporary || e.Hint == "" || !errors.Is(e, errno) {
			t.Errorf("%v became %v (temporary %v)", errno, e, e.Temporary)
		}
	}
}

func TestAlsoKeepsBoth(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	e := New(IO, first, "")
	if e.Also(nil) != e {
		t.Error("nothing more, but another error")
	}
	both := e.Also(second)
	if !errors.Is(both, first) || !errors.Is(both, second) || both.Code != IO || strings.Contains(both.Error(), "\n") || !errors.Is(e, first) || errors.Is(e, second) {
		t.Errorf("got %q", both)
	}
}

func TestCodeOf(t *testing.T) {
	if got := CodeOf(fmt.Errorf("outer: %w", New(TLS, errors.New("x"), ""))); got != TLS {
		t.Errorf("got %q", got)
	}
	if got := CodeOf(errors.New("x")); got != "" {
		t.Errorf("got %q", got)
	}
	if got := CodeOf(nil); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestContextTellsWhy(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the daemon stops")
	cancel(why)
	if e := Context(ctx); e.Code != Canceled || !errors.Is(e, why) {
		t.Errorf("got %v", e)
	}
}
