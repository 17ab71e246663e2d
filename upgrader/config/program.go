package config

import (
	"errors"
	"os"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config/unitfile"
)

// setPath reads where releases come from. A command counts like a file that says
// what is trusted: root alone decides what runs.
func setPath(s scope, t *upgrader.Target, value string) error {
	if err := text(func(t *upgrader.Target) *string { return &t.Source.Path }, sourcePath)(s, t, value); err != nil {
		return err
	}
	program, ok := strings.CutPrefix(t.Source.Path, "exec:")
	if !ok || s.peek {
		return nil
	}
	if err := s.program(program); err != nil {
		return refuse("name a program that root owns and nobody else can write, in directories of root's", "%s: %w", unitfile.Quote(program), bare(err))
	}
	return nil
}

// program looks at a file that would be run.
func (s scope) program(name string) error {
	to, err := s.tree.follow(name)
	if err != nil {
		return err
	}
	st, err := os.Stat(s.tree.real(to))
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return errors.New("not a regular file")
	case st.Mode()&0o111 == 0:
		return errors.New("not executable")
	}
	return s.tree.check(s.tree.real(to), st)
}
