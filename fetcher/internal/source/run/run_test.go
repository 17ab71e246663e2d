package run

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/command"
	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
	"github.com/upgraderd/upgraderd/fetcher/internal/source/sourcetest"
)

// dir is what the program of a test has.
type dir string

func (d dir) Publish(name string, content []byte) {
	temp := filepath.Join(filepath.Dir(string(d)), "new")
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(temp, filepath.Join(string(d), name)); err != nil {
		panic(err)
	}
}

func (d dir) Remove(name string) { os.Remove(filepath.Join(string(d), name)) }

// program follows a script of /bin/sh, with $DIR.
func program(t *testing.T, text string) (*Program, dir) {
	t.Helper()
	top := t.TempDir()
	files := filepath.Join(top, "files")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(top, "program")
	if err := os.WriteFile(name, []byte("#!/bin/sh\nDIR="+files+"\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return New(name, Options{Target: "app", Stall: time.Minute, Run: command.Exec(name, nil)}), dir(files)
}

// honest lists with find(1), and prints with cat(1).
const honest = `case $UPGRADERD_VERB in
list) find "$DIR" -type f -printf '%s %i-%C@ %f\n' ;;
get) [ -e "$DIR/$UPGRADERD_FILE" ] || exit 66; exec cat "$DIR/$UPGRADERD_FILE" ;;
esac
`

func TestConforms(t *testing.T) {
	sourcetest.Conform(t, func(t *testing.T) (source.Source, sourcetest.Publisher) { return program(t, honest) })
}

// TestStates are words that the program knows of its files.
func TestStates(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("hello")))
	p, d := program(t, "case $UPGRADERD_VERB in list) printf '%s\\n' '5 sha256:"+sum+" a b' '- - c' ;; get) cat \"$DIR/$UPGRADERD_FILE\";; esac")
	d.Publish("a b", []byte("hello"))
	d.Publish("c", []byte("hello"))
	ctx := context.Background()
	view, err := p.Look(ctx)
	if err != nil || view.Mark != "" {
		t.Errorf("a file without a state, and the mark is %q, %v", view.Mark, err)
	}
	files, err := p.List(ctx, 2)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if f.Name == "a b" && (f.Size != 5 || fmt.Sprintf("%x", f.Digest) != sum) || f.Name == "c" && (f.Size != -1 || f.Digest != [32]byte{}) {
			t.Errorf("%+v", f)
		}
	}
	_, err = p.List(ctx, 1)
	sourcetest.WantCode(t, err, fault.MetaTooLarge, false)
	_, mark, err := p.Read(ctx, "c", 5, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Read(ctx, "c", 5, mark); !errors.Is(err, source.ErrUnchanged) {
		t.Errorf("read again: %v", err)
	}
	s := sourcetest.MustOpen(t, p, "c", source.Position{Offset: 2})
	if got := sourcetest.MustReadAll(t, s); s.Offset != 0 || string(got) != "hello" {
		t.Errorf("got %q from %d", got, s.Offset)
	}
}

// TestPrograms are none that a person would be glad of.
func TestPrograms(t *testing.T) {
	const get = "[ $UPGRADERD_VERB = list ] && echo 5 x app && exit\n"
	for _, c := range []struct {
		name, text string
		code       fault.Code
		temporary  bool
	}{
		{"no such file", get + "exit 66", fault.NotFound, true},
		{"later", get + "exit 75", fault.Server, true},
		{"not yet", get + "exit 69", fault.Server, true},
		{"denied", get + "exit 77", fault.Denied, false},
		{"misconfigured", get + "exit 78", fault.ConfigSource, false},
		{"failed at the end", get + "printf hello; exit 1", fault.Server, true},
		{"killed", get + "printf hel; kill -9 $$", fault.Server, true},
		{"too little", get + "printf hel", fault.Size, true},
		{"nothing", get + ":", fault.Size, true},
		{"too much", get + "printf hello!", fault.Size, true},
		{"without an end", get + "exec cat /dev/zero", fault.Size, true},
		{"silent", get + "exec sleep 1000", fault.Stalled, true},
		{"silent at the end", get + "printf hello; exec sleep 1000", fault.Stalled, true},
		{"list fails", "echo 5 x app; exit 1", fault.Server, true},
		{"list without an end", "while :; do echo 5 x app; done", fault.MetaTooLarge, false},
		{"list of words", "echo app", fault.MetaSyntax, false},
		{"list of two words", "echo 5 app", fault.MetaSyntax, false},
		{"a size that is none", "echo -5 x app", fault.MetaSyntax, false},
		{"a size too large", "echo 99999999999999999999 x app", fault.MetaSyntax, false},
		{"a path", "echo 5 x ../app", fault.MetaSyntax, false},
		{"a long name", "echo 5 x " + strings.Repeat("x", 300), fault.MetaSyntax, false},
		{"twice", "echo 5 x app; echo 5 y app", fault.MetaSyntax, false},
		{"a digest that is none", "echo 5 sha256:00 app", fault.MetaSyntax, false},
		{"a tab", "printf '5 x\\ty app\\n'", fault.MetaSyntax, false},
		{"many files", "seq -f '5 x %g' 40000", fault.MetaTooLarge, false},
		{"not listed", "echo 5 x other", fault.NotFound, true},
		{"a secret", get + "echo " + sourcetest.Canary + " >&2; exit 1", fault.Server, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := program(t, c.text)
			if strings.HasPrefix(c.name, "silent") {
				p.o.Stall = 300 * time.Millisecond
			}
			before := sourcetest.OpenFiles(t)
			s, err := p.Open(context.Background(), "app", source.Position{})
			if err == nil {
				_, err = io.Copy(io.Discard, s.Body)
				s.Body.Close()
			}
			sourcetest.WantCode(t, err, c.code, c.temporary)
			sourcetest.Settled(t, before)
		})
	}
	p := New("/none", Options{Target: "app", Stall: time.Minute, Run: command.Exec("/none", nil)})
	_, err := p.Look(context.Background())
	sourcetest.WantCode(t, err, fault.Broken, true)
}

func FuzzList(f *testing.F) {
	f.Add([]byte("5 x app\n- - b c\n"))
	f.Add([]byte("5 sha256:" + strings.Repeat("0", 64) + " app"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		files, marks, err := parse(raw)
		if err != nil {
			return
		}
		for name, file := range files {
			if name != file.Name || source.CheckName(name) != nil || file.Size < -1 || len(marks[name]) > 1000 {
				t.Errorf("%q %+v %q", name, file, marks[name])
			}
		}
	})
}
