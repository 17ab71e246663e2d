// Package systemd asks systemd, over the bus, to reload, restart or start a
// unit and to say what is true of it. It never believes a job: a job result
// tells that a job ended, and callers compare [Facts] before and after.
//
// Every call has a deadline of its own, and no wait outlives its context. A
// bus that goes away is found again with back-off; what was under way then
// ends in [ResultUnknown], never in a guess. Nothing here needs more than the
// verbs reload, restart, start and reset-failed on the units it is given, and
// the right of anybody to read properties.
//
// The interface is org.freedesktop.systemd1(5). Jobs are queued in mode
// "fail": where an operator's own job stands in the way, the operator wins,
// but for [Client.Displace].
package systemd
