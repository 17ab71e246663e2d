// Package store keeps the releases of one target on disk. A release is
// complete and durable, or it is not there; a listing of the directory tells
// the whole state; and every change is one atomic rename, so that an error, a
// kill or a power cut at any point leaves the old state or the new one.
//
// # On disk
//
//	<target>/                         0755  every service user may read it
//	  releases/                       0755
//	    1.4.2-0123456789ab/           0555  exactly the artifact's tree: directories 0555,
//	      bin/app                     0555    programs 0555, other files 0444
//	    1.4.2-0123456789ab.sha256     0644  which artifact it came from, and what it has to look like
//	  current  -> releases/…                what any start of the service runs
//	  next     -> releases/…                only while a handover is on trial
//	  previous -> releases/…                what a rollback returns to
//	  staged   -> releases/…                verified, and waits to be swapped in
//	  tried    -> releases/…                what was next and was started once: only of upgraderd itself
//	  record.json                     0644  the step about to be taken
//	  known-bad/<digest>              0644  an artifact that is not to be tried again, and why
//	  lock                            0600  flock(2); the PID in it is for people
//	  .incoming-0123456789ab/         0700  an artifact being fetched, and tree/ being unpacked
//	  order.json                      0644  what the operator wants, until there is an answer
//	  wishes.json                     0644  what the operator forbids, until it is taken back
//	  progress.json                   0644  how far a transfer is, while there is one
//	  look.json                       0644  when the source answered last
//	  .import-<order>/                0700  the files of such an order, until then
//	  .reserve-0 … 3, .reserve-link   0644  room for the record and a link when there is no other
//
// Names with a dot in front are not part of the state. Some live for a moment
// only: .tmp-* (a file or link about to be renamed), releases/.new-* and .old-*
// (a release that comes or goes). What a crash leaves of them, CleanIncoming
// removes.
//
// The last twelve characters of a release's name are the first of its artifact's
// SHA-256. The whole digest stands in the .sha256 file, which sha256sum(1) can
// check, too:
//
//	cd releases/1.4.2-0123456789ab && sha256sum -c ../1.4.2-0123456789ab.sha256
//
// # What makes it last
//
// A file is written under another name, fsynced and renamed, and the directory
// is fsynced; a release likewise, from its files up (see Store.Install). Nothing
// is reported done before that. A failed fsync is never repeated, because the
// second one succeeds and the disk still holds the old bytes: what was being
// written is abandoned, and what had been renamed is renamed back.
//
// A rename is taken to be atomic and an fsync of a directory to make it last,
// as on ext4, xfs, btrfs and tmpfs (which forgets all of it alike). Where fsync
// does not work on directories, Open says so. The target's directory has to be
// on one file system.
//
// # A full disk
//
// A few files, 1.1 MiB in all, are held in reserve. When a record or a known-bad
// entry finds no room, it takes the place of one of them, so that a failure can
// be written down on a disk without a free block or inode. For a link, and on
// file systems that copy on write (btrfs), one is given back to the disk instead,
// and somebody else may be quicker to use it. Preflight fills the reserve, and
// refuses to begin what could not be recorded.
//
// # Concurrency and trust
//
// Whoever changes anything holds Lock; readers need nothing, and see the state
// before or after each change. The package trusts that nobody but the daemon's
// user may write to the directory, which Open checks, and nothing else about
// what it finds there. It knows nothing of units, and imports nothing that does.
package store
