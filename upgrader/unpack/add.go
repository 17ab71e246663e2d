package unpack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/upgraderd/upgraderd/upgrader/store/reason"
)

// Add puts one more file into a tree that Unpack filled, under a name that has to be
// free. It reads from the start of the file.
func Add(file *os.File, tree, name string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return reason.FS("open the tree", err)
	}
	defer func() { _ = root.Close() }() // a directory: nothing is lost
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &Error{Code: CodePath, Op: "add " + name, Err: errors.New("the artifact has one of its own")}
	}
	if err != nil {
		return reason.FS("add "+name, err)
	}
	st, err := file.Stat()
	if err == nil {
		var n int64
		n, err = io.Copy(out, io.NewSectionReader(file, 0, st.Size()))
		if err == nil && n != st.Size() {
			err = fmt.Errorf("got %d bytes, want %d: %w", n, st.Size(), io.ErrUnexpectedEOF)
		}
	}
	return reason.FS("add "+name, errors.Join(err, out.Close()))
}
