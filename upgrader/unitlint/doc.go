// Package unitlint says of a target's unit what would make an upgrade lose
// connections, or keep a bad release. It reads files, asks nobody and changes
// nothing: the same files give the same findings, below any root directory and
// without systemd. A finding is an error only where the target's Swap= cannot
// work or connections are certainly lost; all else is a warning. What cannot be
// known from files (a variable, a specifier of the running system) is no
// finding.
//
// Units are read as systemd 252 reads them:
//
//	SearchPath                        of two files with one name the earlier
//	                                  directory's counts
//	a -> b.service                    an alias: b.service, wherever that is
//	a -> /dev/null, or empty          masked
//	a@.service                        for a@INSTANCE.service that is no file
//	a-b.service.d/*.conf              then drop-ins, by file name; of two with
//	a-.service.d/, service.d/         one name the unit's own, its aliases',
//	                                  the type's, each by directory
//
// A later assignment replaces an earlier one, and a list grows. An empty value
// takes back what was said before of a list, of KillMode= and of User=; of most
// other keys systemd ignores it (seen on 252, 257 and 262).
//
// The table in rules.go has one row per code; docs/unit-checks.md is made from
// it. What a unit looks like while it runs is not looked at: the daemon does
// that, before each swap.
package unitlint
