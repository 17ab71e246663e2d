// Package run is a source: a program of the operator's, asked as package command
// says. Its promise: of what a program prints at most so much is kept as was asked
// for, and no answer is waited for longer than nothing comes.
package run

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/upgraderd/upgraderd/fetcher/command"
	"github.com/upgraderd/upgraderd/fetcher/fault"
	"github.com/upgraderd/upgraderd/fetcher/internal/source"
)

const (
	// listMax is what a manifest may have, too.
	listMax  = 4 << 20
	linesMax = 32768
	stateMax = 255
)

// Options say how a program is asked.
type Options struct {
	// Target is told to the program.
	Target string
	// Stall ends a program that prints nothing for this long.
	Stall time.Duration
	// Run runs the program.
	Run command.Run
}

// Program is a program that has files.
type Program struct {
	name string
	o    Options

	mu    sync.Mutex
	files map[string]source.File // by the last look; nil before
	marks map[string]source.Mark
}

var (
	_ source.Source = (*Program)(nil)
	_ source.Looker = (*Program)(nil)
	_ source.Lister = (*Program)(nil)
)

// New asks the program name. It is not run yet.
func New(name string, o Options) *Program { return &Program{name: name, o: o} }

// String gives the program.
func (p *Program) String() string { return "exec:" + p.name }

// Look has the program list its files.
func (p *Program) Look(ctx context.Context) (source.View, error) {
	out, err := p.ask(ctx, command.Request{Verb: command.List})
	if err != nil {
		return source.View{}, err
	}
	defer out.Close()
	raw, err := io.ReadAll(io.LimitReader(out, listMax+1))
	if err != nil {
		return source.View{}, err
	}
	if len(raw) > listMax {
		return source.View{}, fault.New(fault.MetaTooLarge, fmt.Errorf("the command lists more than %d bytes", listMax), "have it leave out old releases")
	}
	files, marks, err := parse(raw)
	if err != nil {
		return source.View{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files, p.marks = files, marks
	view := source.View{Mark: source.Mark(fmt.Sprintf("%x", sha256.Sum256(raw)))}
	for _, mark := range marks {
		if mark == "" {
			view.Mark = "" // what cannot be told apart may have changed
		}
	}
	return view, nil
}

// parse reads lines of SIZE STATE NAME.
func parse(raw []byte) (map[string]source.File, map[string]source.Mark, error) {
	files, marks := map[string]source.File{}, map[string]source.Mark{}
	lines := 0
	for line := range bytes.Lines(raw) {
		lines++
		bad := func(format string, a ...any) (map[string]source.File, map[string]source.Mark, error) {
			return nil, nil, fault.New(fault.MetaSyntax, fmt.Errorf("line %d of what the command lists: "+format, append([]any{lines}, a...)...),
				"have it print SIZE STATE NAME for each file, with one space between")
		}
		if lines > linesMax {
			return nil, nil, fault.New(fault.MetaTooLarge, fmt.Errorf("the command lists more than %d files", linesMax), "have it leave out old releases")
		}
		size, rest, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		state, name, ok2 := strings.Cut(rest, " ")
		if !ok || !ok2 || name == "" || state == "" {
			return bad("not three words")
		}
		f := source.File{Name: name, Size: -1}
		if size != "-" {
			n, err := strconv.ParseUint(size, 10, 63)
			if err != nil {
				return bad("%.40q is no size", size)
			}
			f.Size = int64(n)
		}
		if source.CheckName(name) != nil || len(name) > 255 {
			return bad("%.40q is not the name of a file", name)
		}
		if _, twice := files[name]; twice {
			return bad("%q is there twice", name)
		}
		if len(state) > stateMax || strings.ContainsFunc(state, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return bad("%.40q is no state", state)
		}
		if digest, ok := strings.CutPrefix(state, "sha256:"); ok {
			sum, err := hex.DecodeString(digest)
			if err != nil || len(sum) != sha256.Size {
				return bad("want 64 hex digits behind sha256:")
			}
			f.Digest = [32]byte(sum)
		}
		if marks[name] = source.Mark(size + " " + state); state == "-" {
			marks[name] = ""
		}
		files[name] = f
	}
	return files, marks, nil
}

// file gives what the last look says of a file.
func (p *Program) file(ctx context.Context, name string) (source.File, source.Mark, error) {
	if err := source.CheckName(name); err != nil {
		return source.File{}, "", err
	}
	p.mu.Lock()
	looked := p.files != nil
	p.mu.Unlock()
	if !looked {
		if _, err := p.Look(ctx); err != nil {
			return source.File{}, "", err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.files[name]
	if !ok {
		return source.File{}, "", fault.Passing(fault.NotFound, fmt.Errorf("the command lists no %s", name), "check what it has, and that it lists that")
	}
	return f, p.marks[name], nil
}

// List gives what the last look found.
func (p *Program) List(ctx context.Context, max int) ([]source.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var files []source.File
	for _, f := range p.files {
		files = append(files, f)
	}
	if len(files) > max {
		return nil, fault.New(fault.MetaTooLarge, fmt.Errorf("the command lists more than %d files", max), "have it leave out old releases")
	}
	return files, nil
}

// Read has the program print a small file, unless its state says that it is as it
// was.
func (p *Program) Read(ctx context.Context, name string, max int64, since source.Mark) ([]byte, source.Mark, error) {
	f, mark, err := p.file(ctx, name)
	if err != nil {
		return nil, "", err
	}
	if mark != "" && mark == since {
		return nil, mark, source.ErrUnchanged
	}
	if f.Size > max {
		return nil, "", source.TooLarge(name, f.Size, max)
	}
	body, err := p.get(ctx, f)
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, max+1))
	if err != nil {
		return nil, "", err
	}
	if int64(len(raw)) > max {
		return nil, "", source.TooLarge(name, -1, max)
	}
	if mark == "" {
		if mark = source.Mark(fmt.Sprintf("content %x", sha256.Sum256(raw))); mark == since {
			return nil, mark, source.ErrUnchanged
		}
	}
	return raw, mark, nil
}

// Open has the program print a file. What is there already is printed again, and
// not kept.
func (p *Program) Open(ctx context.Context, name string, from source.Position) (*source.Stream, error) {
	f, mark, err := p.file(ctx, name)
	if err != nil {
		return nil, err
	}
	body, err := p.get(ctx, f)
	if err != nil {
		return nil, err
	}
	s := &source.Stream{Body: body, Size: f.Size, Mark: mark, Digest: f.Digest}
	if from.Offset < f.Size && (from.Mark == "" || from.Mark == mark) {
		s.Offset = from.Offset
	}
	if _, err := io.CopyN(io.Discard, body, s.Offset); err != nil {
		body.Close()
		if errors.Is(err, io.EOF) {
			err = body.short()
		}
		return nil, err
	}
	return s, nil
}

func (p *Program) get(ctx context.Context, f source.File) (*body, error) {
	out, err := p.ask(ctx, command.Request{Verb: command.Get, File: f.Name})
	if err != nil {
		return nil, err
	}
	out.name, out.want = f.Name, f.Size
	return out, nil
}

// ask runs the program.
func (p *Program) ask(ctx context.Context, r command.Request) (*body, error) {
	r.Target = p.o.Target
	b := &body{p: p, name: r.Verb, want: -1}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	out, err := p.o.Run(b.ctx, r)
	if err != nil {
		err = b.fault(err)
		b.cancel(context.Canceled)
		return nil, err
	}
	b.out = out
	return b, nil
}

// body is what a program prints, as long as something comes.
type body struct {
	p      *Program
	ctx    context.Context
	cancel context.CancelCauseFunc
	out    io.ReadCloser
	name   string
	want   int64 // bytes, -1 unknown
	got    int64
}

var errStalled = errors.New("nothing is printed")

func (b *body) Read(buf []byte) (int, error) {
	stall := time.AfterFunc(b.p.o.Stall, func() { b.cancel(errStalled) })
	n, err := b.out.Read(buf)
	stall.Stop()
	b.got += int64(n)
	switch {
	case b.want >= 0 && b.got > b.want:
		return 0, fault.Passing(fault.Size, fmt.Errorf("%s: the command printed more than the %d bytes that it listed", b.name, b.want), hintStderr)
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && (b.want < 0 || b.got == b.want):
		return n, io.EOF
	case errors.Is(err, io.EOF):
		return n, b.short()
	}
	return n, b.fault(err)
}

const hintStderr = "see what the command wrote to its standard error"

func (b *body) short() error {
	return fault.Passing(fault.Size, fmt.Errorf("%s: the command listed %d bytes and printed %d", b.name, b.want, b.got), hintStderr)
}

// Close ends the program.
func (b *body) Close() error {
	b.cancel(context.Canceled)
	return b.out.Close()
}

// fault says why there is no answer, or no more of it.
func (b *body) fault(err error) error {
	switch cause := context.Cause(b.ctx); {
	case cause == nil:
	case errors.Is(cause, errStalled):
		return fault.Passing(fault.Stalled, fmt.Errorf("the command printed nothing for %v", b.p.o.Stall), hintStderr)
	default:
		return fault.Context(b.ctx)
	}
	var exit *command.ExitError
	if !errors.As(err, &exit) {
		return fault.Bare(err, func(err error) *fault.Error {
			return fault.Passing(fault.Broken, fmt.Errorf("run %s: %w", b.p.name, err), hintStderr)
		})
	}
	err = fmt.Errorf("%s: the command ended with %w", b.name, err)
	switch exit.Status {
	case command.NoInput:
		return fault.Passing(fault.NotFound, err, hintStderr)
	case command.NoPerm:
		return fault.New(fault.Denied, err, hintStderr)
	case command.Config:
		return fault.New(fault.ConfigSource, err, hintStderr)
	}
	return fault.Passing(fault.Server, err, hintStderr)
}
