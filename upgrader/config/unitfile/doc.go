// Package unitfile reads text the way systemd reads its own configuration:
// whatever systemd 252 makes of a file, a word list, a time span, a size or a
// unit name, this package makes the same of it, and what systemd warns about
// is an error with a line number here.
//
// It knows the syntax and nothing of any key: systemd.syntax(7),
// systemd.time(7), the unit names of systemd.unit(5), the specifiers of the
// same page. Nothing in it opens a file, waits or keeps state; every function
// may be called from many goroutines at once.
//
// Three readings are stricter than systemd's, each because a person who wrote
// such a thing meant something else: an unknown escape in a quoted word, a
// NUL made by an escape, and a comment that follows a byte order mark.
package unitfile
