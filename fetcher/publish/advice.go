package publish

// advised is an error that knows what to do about it, and says so behind a semicolon,
// as [fault.Error] does. It has no code: no host meets it.
type advised struct {
	error
	advice string
}

func (e *advised) Error() string { return e.error.Error() + "; " + e.advice }
func (e *advised) Unwrap() error { return e.error }

// Advice is what a person can do about it.
func (e *advised) Advice() string { return e.advice }
