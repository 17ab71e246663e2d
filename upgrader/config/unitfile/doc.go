// Package unitfile reads text the way systemd reads its own configuration:
// whatever systemd 252 makes of a file, a word list, a time span, a size or a
// unit name, this package makes the same of it, and what systemd warns about
// is an error with a line number here.
//
// It knows the syntax and nothing of any key: systemd.syntax(7),
// systemd.time(7), the unit names and specifiers of systemd.unit(5). Nothing in
// it opens a file, waits or keeps state; every function may be called from many
// goroutines at once.
//
// Where it differs, it is because a person meant something else, or because
// Go does. A comment behind a byte order mark is a comment, not a key. A broken
// section header ends its section, not the reading of the file. An escape
// cannot make bytes that are no UTF-8. A size has a digit on both sides of its
// point and fits an int64, a time span fits a time.Duration.
package unitfile
