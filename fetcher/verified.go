package fetcher

import "os"

// Verified is an artifact on this disk whose digest is the promised one, or what is
// in it, if patches led there: its digest is then promised by an index of the same
// manifest. Only Fetch makes one. The file under its path could be replaced by the owner of
// the directory; what File gives could not: it is the inode that was hashed.
type Verified struct {
	candidate Candidate
	name      string
	path      string
	file      *os.File
	config    *os.File // nil: none
	received  int64
	patches   int
}

// Candidate tells version, name, digest and size of the artifact; the last two are
// known now whatever the listing said. Where patches led to its content they are
// those of the file that did not have to come.
func (v *Verified) Candidate() Candidate { return v.candidate }

// Name says by its end what File holds. It is the candidate's, or where patches led
// to the content that of the content: app_1.4.2 for app_1.4.2.zst.
func (v *Verified) Name() string { return v.name }

// Received is how many bytes this Fetch took from the source, lists aside.
func (v *Verified) Received() int64 { return v.received }

// Patches is how many patches led to the content; 0: the artifact itself was
// fetched, or its content was here.
func (v *Verified) Patches() int { return v.patches }

// Path is where the artifact was put, for messages. Read it through File.
func (v *Verified) Path() string { return v.path }

// File is the artifact, open for reading only. It belongs to v: do not close
// it, and do not use it after Close.
func (v *Verified) File() *os.File { return v.file }

// Close closes the file, and that of Config. The artifact stays where it is; its
// directory's owner removes it.
func (v *Verified) Close() error {
	if v.config != nil {
		_ = v.config.Close() // read only
	}
	return v.file.Close()
}
