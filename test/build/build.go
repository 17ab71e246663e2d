// Package build makes the programs that tests and demo put into machines, from
// this module, the way releases are built: static and without paths.
package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Cache builds each program once. The zero value is ready. Close removes what
// was built.
type Cache struct {
	mu   sync.Mutex
	dir  string
	done map[string]string
}

// Program builds a command of this module with linker flags beyond the usual,
// and gives the path of the executable, which is not to be changed.
func (c *Cache) Program(ctx context.Context, pkg string, ldflags ...string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := pkg + " " + strings.Join(ldflags, " ")
	if path, ok := c.done[key]; ok {
		return path, nil
	}
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "upgraderd-build-*")
		if err != nil {
			return "", fmt.Errorf("build %s: %w", pkg, err)
		}
		c.dir, c.done = dir, make(map[string]string)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	path := filepath.Join(c.dir, fmt.Sprintf("%s-%d", filepath.Base(pkg), len(c.done)))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w "+strings.Join(ldflags, " "), "-o", path, pkg)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, &out)
	}
	c.done[key] = path
	return path, nil
}

// Hello builds the example service: this version, with this fault or none.
func (c *Cache) Hello(ctx context.Context, version, fault string) (string, error) {
	flags := []string{"-X main.version=" + version}
	if fault != "" {
		flags = append(flags, "-X main.fault="+fault)
	}
	return c.Program(ctx, "./examples/hello", flags...)
}

// Close removes what was built.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := c.dir
	c.dir, c.done = "", nil
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

// moduleRoot is the directory of go.mod, at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find go.mod: no directory above has one")
		}
		dir = parent
	}
}
