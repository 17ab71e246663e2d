// Command configured is a service with a configuration that is released by itself:
// see docs/config.md. Its one argument is the file.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/upgraderd/upgraderd/activation"
)

// settings are read as a whole, and never changed once they are in use.
type settings struct {
	Version  string `json:"version"`
	Greeting string `json:"greeting"`
}

func read(path string) (*settings, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := new(settings)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s.Greeting == "" {
		return nil, fmt.Errorf("read %s: no greeting", path)
	}
	return s, nil
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: configured FILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var current atomic.Pointer[settings]
	load := func(context.Context) error {
		s, err := read(os.Args[1])
		if err == nil {
			current.Store(s)
		}
		return err
	}
	if err := load(ctx); err != nil {
		return err
	}
	activation.OnReload(ctx, load) // before READY=1, which Serve sends
	return activation.Serve(ctx, activation.Server{HTTP: &http.Server{
		Addr: "127.0.0.1:8080",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s := current.Load()
			w.Header().Set("X-Version", s.Version)
			fmt.Fprintln(w, s.Greeting)
		}),
	}})
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
