package fetcher

import (
	"errors"

	"github.com/upgraderd/upgraderd/fetcher/fault"
)

// Error is what every method of Fetcher returns: a reason code, what happened,
// what to do, and whether to try again. Package fault lists the codes.
type Error = fault.Error

// explain names target, step and source in err. Every error leaves by here.
func (f *Fetcher) explain(op string, err error) *Error {
	e := *local(err)
	e.Target, e.Op, e.Source = f.name(), op, f.source.String()
	return &e
}

// local takes what has no reason yet for an error of this host.
func local(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return fault.Local(err)
}
