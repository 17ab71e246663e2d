package fetcher

import "github.com/upgraderd/upgraderd/fetcher/fault"

// Error is what every method of Fetcher returns: a reason code, what happened,
// what to do, and whether to try again. Package fault lists the codes.
type Error = fault.Error

// explain names target, step and source in err; what has no reason yet is an
// error of this host. Every error leaves by here.
func (f *Fetcher) explain(op string, err error) *Error {
	e := *fault.Bare(err, fault.Local)
	e.Target, e.Op = f.name(), op
	if e.Source == "" {
		e.Source = f.mirrors[0].source.String()
	}
	return &e
}
