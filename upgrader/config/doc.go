// Package config turns .upgrade files into upgrader.Target values. What it
// returns as a target is whole and checked: every required key is there, every
// value is in range, a source without a signature was asked for by name. A file
// that says less, or something unknown, gives no target but diagnostics with
// file and line, and never keeps another file from being read.
//
// Everything known about a key (section, name, parser, field, default, help,
// example) stands once, in table.go. The reader, the lint, the help text and
// docs/upgrade-keys.md are made from it.
//
// Files are read as systemd reads units:
//
//	/etc/upgraderd/NAME.upgrade               the first of these
//	/run/upgraderd/NAME.upgrade               directories that has
//	/usr/local/lib/upgraderd/NAME.upgrade     the file wins; a symlink
//	/usr/lib/upgraderd/NAME.upgrade           to /dev/null masks it
//	DIR/NAME.upgrade.d/*.conf                 then these, by file name, each
//	                                          from the first DIR that has it
//	PREFIX@INSTANCE.upgrade -> PREFIX@.upgrade  an instance of a template
//
// A user's are in directories of their own, see package realm and [Reader].
//
// Only what root alone could have written is read, or the user whose they are: the polkit rule lets the
// daemon touch the units that these files name, so whoever may write one
// could have it restart any unit.
//
// A later assignment replaces an earlier one, a list grows; an empty value
// takes back what was said before. Only what remains is judged, so a drop-in
// can mend the file below it.
//
// Nothing is cached and nothing is written: two calls read the disk twice.
// All functions may be called from many goroutines at once.
package config
