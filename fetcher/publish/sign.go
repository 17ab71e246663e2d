package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"aead.dev/minisign"
)

// Minisign signs as minisign(1) does, with one key: the first of several writes
// SHA256SUMS.minisig, the others SHA256SUMS.ID.minisig.
type Minisign struct {
	Key minisign.PrivateKey
}

// Sign implements [Signer].
func (m Minisign) Sign(_ context.Context, manifest string) error {
	raw, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	signature := bytes.NewReader(minisign.Sign(m.Key, raw))
	usual := manifest + ".minisig"
	if _, err := os.Lstat(usual); err == nil {
		return writeFile(fmt.Sprintf("%s.%X.minisig", manifest, m.Key.ID()), signature)
	}
	return writeFile(usual, signature)
}

// Command is a signer of any kind: a command that gets SHA256SUMS as its last
// argument, in its own directory, and leaves a signature there. gpg(1),
// ssh-keygen(1) and minisign(1) are such. It has this process's terminal.
type Command []string

// Sign implements [Signer].
func (c Command) Sign(ctx context.Context, manifest string) error {
	if len(c) == 0 {
		return errors.New("the command is empty")
	}
	dir := filepath.Dir(manifest)
	before, err := signatureFiles(dir)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c[0], append(c[1:len(c):len(c)], filepath.Base(manifest))...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, os.Stdin, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(c, " "), err)
	}
	after, err := signatureFiles(dir)
	if err == nil && len(after) <= len(before) {
		err = fmt.Errorf("%s left no signature beside %s", strings.Join(c, " "), manifestName)
	}
	return err
}
