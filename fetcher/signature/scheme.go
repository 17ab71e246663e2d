package signature

import "time"

// scheme is a kind of signature.
type scheme interface {
	// String is what people call it.
	String() string
	// recognizes tells that text is meant to hold its keys, good or bad.
	recognizes(text []byte) bool
	// parse gives all keys of a text that it recognizes, at least one. It
	// refuses the whole text for one key that nobody should trust.
	parse(text []byte) ([]Key, error)
	// files names the files that may hold signatures of keys over the file
	// of: the usual ones, and those that are looked for after them.
	files(of string, keys []Key) (usual, more []string)
	// command is how the file of is signed, for people.
	command(of string) string
	// signers tells which of keys, all of this scheme, made the signatures
	// in a file. Beside them, or instead of them, it gives what kept the
	// first of the other signatures from counting. A file that it cannot
	// read to its end has no signers.
	signers(d document, file string, content []byte, keys []Key) ([]signing, error)
}

// signing is a signature that counts: whose it is, and when it was made by its
// own word, zero if it does not say. The word is as good as the signer's clock,
// and signed.
type signing struct {
	Key
	when time.Time
}

// document is what was signed.
type document struct {
	name string
	raw  []byte
	now  time.Time
}

// schemes are asked in this order. It is a function since nothing in this
// package is changeable and global.
func schemes() []scheme {
	return []scheme{minisignScheme{}, openPGPScheme{}, sshScheme{}}
}

// signaturesMax bounds the signatures in one file: more than any threshold
// needs, few enough to check in no time.
const signaturesMax = 32
