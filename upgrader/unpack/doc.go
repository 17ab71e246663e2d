// Package unpack turns a verified artifact into a tree of plain files, and never
// writes outside the directory it was given. Whatever the artifact holds, what
// comes out has only directories, regular files of mode 0644 or 0755, and
// symlinks that lead to something inside.
//
// The name of an artifact tells what it is: a tar archive (.tar, or .tar.gz,
// .tgz, .tar.zst, .tzst, .tar.xz, .txz), one compressed program (.gz, .zst, .xz),
// or else the program itself.
//
// # What an archive may hold
//
// Names are relative, of UTF-8 without control characters or backslashes, at
// most 255 bytes a component, 1024 in all and 64 levels deep. A leading "./"
// is taken off; any other ".", ".." or empty component is refused, so that
// each file has one name. The same name twice is refused; names that differ in
// case only are two files, as they are to Linux.
//
// Symlinks are made after everything else, so nothing is ever written through
// one. They have to be relative and to lead to something in the tree, both as
// their text reads and as the kernel follows them: one that leaves the tree,
// even to come back, or that dangles, is refused. Because a release never
// changes, what was checked here stays true.
//
// Hard links are refused: two names of one inode cannot have modes of their
// own, and a link to a file that is not from the archive would hand that file
// to the store, to be made read-only. Devices, FIFOs, sparse files,
// setuid, setgid and sticky bits and file capabilities are refused rather than
// dropped, because a program packed with them would not work without. Owners,
// times and other extended attributes are ignored.
//
// # Durability
//
// Nothing is fsynced here: store.Install does that, once, for every file.
package unpack
