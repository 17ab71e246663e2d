package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/store"
	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// advised is an error that knows what to do next.
type advised struct {
	error
	hint string
}

func (e *advised) Error() string { return e.error.Error() + "; " + e.hint }
func (e *advised) Unwrap() error { return e.error }

// advise gives err a hint.
func advise(err error, format string, args ...any) error {
	return &advised{err, fmt.Sprintf(format, args...)}
}

// hintOf finds what a person can do about an error, "" if nobody said.
func hintOf(err error) string {
	var (
		own     *advised
		fetched *fetcher.Error
		given   *upgrader.ImportError
		bus     *systemd.Error
		stored  *store.Error
	)
	switch {
	case errors.As(err, &own):
		return own.hint
	case errors.As(err, &fetched) && fetched.Hint != "":
		return fetched.Hint
	case errors.As(err, &given) && given.Hint != "":
		return given.Hint
	case errors.As(err, &bus) && bus.Hint != "":
		return bus.Hint
	case errors.As(err, &stored):
		return stored.Hint
	}
	return ""
}

// tellError writes what went wrong, and on a line of its own what to do next.
func tellError(w io.Writer, err error) {
	text, hint := err.Error(), hintOf(err)
	if hint != "" {
		if what, ok := strings.CutSuffix(text, "; "+hint); ok {
			fmt.Fprintf(w, "upgraderd: %s\n\thint: %s\n", what, hint)
			return
		}
	}
	fmt.Fprintf(w, "upgraderd: %s\n", text)
}
