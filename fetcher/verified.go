package fetcher

import "os"

// Verified is an artifact on this disk whose digest is the promised one. Only
// Fetch makes one. The file under its path could be replaced by the owner of
// the directory; what File gives could not: it is the inode that was hashed.
type Verified struct {
	candidate Candidate
	path      string
	file      *os.File
}

// Candidate tells version, name, digest and size; the last two are known now
// whatever the listing said.
func (v *Verified) Candidate() Candidate { return v.candidate }

// Path is where the artifact was put, for messages. Read it through File.
func (v *Verified) Path() string { return v.path }

// File is the artifact, open for reading only. It belongs to v: do not close
// it, and do not use it after Close.
func (v *Verified) File() *os.File { return v.file }

// Close closes the file. The artifact stays where it is; its directory's owner
// removes it.
func (v *Verified) Close() error { return v.file.Close() }
