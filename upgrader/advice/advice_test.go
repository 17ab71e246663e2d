package advice

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// told is how a person sees it.
func told(err error) string {
	var b strings.Builder
	for _, l := range Split(err) {
		b.WriteString(l.Text + "|" + strings.Join(l.Advice, "|") + "\n")
	}
	return b.String()
}

func TestSplit(t *testing.T) {
	plain := errors.New("it broke; really")
	one := Give(fs.ErrNotExist, "make %s", "it")
	for _, row := range []struct {
		err  error
		want string
	}{
		{plain, "it broke; really|\n"},
		{one, "file does not exist|make it\n"},
		{fmt.Errorf("open it: %w", one), "open it: file does not exist|make it\n"},
		{fmt.Errorf("open it: %w (twice)", one), "open it: file does not exist; make it (twice)|\n"},
		{fmt.Errorf("open it: %w; and then %w", one, plain), "open it: file does not exist; and then it broke; really|make it\n"},
		{Give(fmt.Errorf("a: %w", one), "buy it"), "a: file does not exist|buy it|make it\n"},
		{errors.Join(one, plain, Give(plain, "fly")), "file does not exist|make it\nit broke; really|\nit broke; really|fly\n"},
		{fmt.Errorf("%w\nNothing was changed", one), "file does not exist|make it\nNothing was changed|\n"},
	} {
		if got := told(row.err); got != row.want {
			t.Errorf("%v: got %q, want %q", row.err, got, row.want)
		}
	}
	if !errors.Is(one, fs.ErrNotExist) {
		t.Error("what went wrong is not found any more")
	}
	if got := Of(errors.Join(plain, fmt.Errorf("a: %w", one))); !slices.Equal(got, []string{"make it"}) {
		t.Errorf("got %q", got)
	}
}
