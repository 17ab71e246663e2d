package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"aead.dev/minisign"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/upgraderd/upgraderd/fetcher/publish"
)

func keygenCommand() *cobra.Command {
	var (
		password passwordFlags
		tuf      bool
	)
	cmd := &cobra.Command{
		Use:   "keygen NAME | keygen --tuf DIR",
		Short: "Make a key that signs releases: NAME.key and NAME.pub",
		Long: `Make a minisign key pair. NAME.key signs, and never leaves the publisher;
NAME.pub is what hosts trust, by its second line or as a file. minisign(1) reads
both. Files that exist are not replaced.

The secret key is encrypted with a password that is asked for, or read from
--password-file=; --no-password is for a file that something else protects.

With --tuf, make the keys of a repository of The Update Framework instead: DIR
gets root.pem, targets.pem, snapshot.pem and timestamp.pem. Keep root.pem in a
safe once the repository is there; it is needed again to change keys.`,
		Example: "  upgraderd keygen release\n  upgraderd publish /srv/app ./app --version=1.4.2 --key=release.key",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tuf {
				if err := publish.MakeRoleKeys(args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s holds a key for each role\n", args[0])
				return nil
			}
			public, private, err := minisign.GenerateKey(rand.Reader)
			if err != nil {
				return fmt.Errorf("make a key: %w", err)
			}
			secret, err := password.seal(private)
			if err != nil {
				return err
			}
			open, err := public.MarshalText()
			if err != nil {
				return err
			}
			if err := writeNew(args[0]+".key", 0o600, append(bytes.TrimRight(secret, "\n"), '\n')); err != nil {
				return err
			}
			if err := writeNew(args[0]+".pub", 0o644, append(bytes.TrimRight(open, "\n"), '\n')); err != nil {
				return errors.Join(err, os.Remove(args[0]+".key"))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s.key signs, keep it; hosts trust\nKey=%s\n", args[0], public)
			return nil
		},
	}
	cmd.Flags().BoolVar(&tuf, "tuf", false, "make the keys of a TUF repository, not encrypted")
	password.add(cmd)
	return cmd
}

// writeNew makes a file that must not be there yet.
func writeNew(name string, mode os.FileMode, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// passwordFlags say how a secret key is protected.
type passwordFlags struct {
	file string
	none bool
}

func (p *passwordFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "password-file", "", "read the password of the secret key from the first line of this `file`")
	cmd.Flags().BoolVar(&p.none, "no-password", false, "the secret key is not encrypted")
	cmd.MarkFlagsMutuallyExclusive("password-file", "no-password")
}

// seal gives the text of a secret key.
func (p *passwordFlags) seal(key minisign.PrivateKey) ([]byte, error) {
	if p.none {
		return key.MarshalText()
	}
	password, err := p.read("Password of the new key: ")
	if err != nil {
		return nil, err
	}
	if password == "" {
		return nil, advise(errors.New("the password is empty"), "say --no-password if that is meant")
	}
	if p.file == "" {
		again, err := p.read("Once more: ")
		if err != nil {
			return nil, err
		}
		if again != password {
			return nil, errors.New("the two passwords differ")
		}
	}
	return minisign.EncryptKey(password, key)
}

// open reads a secret key.
func (p *passwordFlags) open(name string) (minisign.PrivateKey, error) {
	var key minisign.PrivateKey
	text, err := os.ReadFile(name)
	if err != nil {
		return key, err
	}
	if !minisign.IsEncrypted(text) {
		if err := key.UnmarshalText(text); err != nil {
			return key, fmt.Errorf("%s is no secret key of minisign: %w", name, err)
		}
		return key, nil
	}
	if p.none {
		return key, advise(fmt.Errorf("%s is encrypted", name), "leave --no-password out")
	}
	password, err := p.read("Password of " + name + ": ")
	if err != nil {
		return key, err
	}
	if key, err = minisign.DecryptKey(password, text); err != nil {
		return key, fmt.Errorf("%s: wrong password, or a damaged key: %w", name, err)
	}
	return key, nil
}

func (p *passwordFlags) read(prompt string) (string, error) {
	if p.file != "" {
		data, err := os.ReadFile(p.file)
		line, _, _ := strings.Cut(string(data), "\n")
		return line, err
	}
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return "", advise(errors.New("there is no terminal to ask for a password"), "use --password-file= or --no-password")
	}
	fmt.Fprint(os.Stderr, prompt)
	line, err := term.ReadPassword(in)
	fmt.Fprintln(os.Stderr)
	return string(line), err
}
