package main

import (
	"fmt"
	"io"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// advise gives err a hint.
func advise(err error, format string, args ...any) error { return advice.Give(err, format, args...) }

// tellError writes what went wrong, and on lines of their own what to do next.
func tellError(w io.Writer, err error) {
	prefix := "upgraderd: "
	for _, l := range advice.Split(err) {
		fmt.Fprintf(w, "%s%s\n", prefix, l.Text)
		for _, a := range l.Advice {
			fmt.Fprintf(w, "\thint: %s\n", a)
		}
		prefix = ""
	}
}
