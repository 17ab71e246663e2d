// Package journal makes every line that upgraderd says findable, and safe to
// print: one event is one line, its MESSAGE_ID never changes, its facts are
// fields, and nothing that came from outside reaches a terminal unescaped.
//
// The events are one table (see [Events]): name, MESSAGE_ID, level, sentence,
// and the text that `journalctl -x` shows. The catalog file that we ship is
// generated from the same table, and a test compares the two.
//
// [Emit] writes an event through any [*slog.Logger]. [NewHandler] is the slog
// handler that speaks the native journal protocol when stderr is the journal,
// and plain text otherwise.
//
// # Fields
//
// An attribute named target becomes the field UPGRADERD_TARGET, and so on for
// every name; a [time.Duration] becomes microseconds and its field ends in
// _USEC. Attributes in a group get the group's name in front. The attribute
// target also opens the sentence ("app: fetched 1.5.0"), and verify=no, which
// every line of an unsigned target carries, stands beside it.
//
// What it does not do: rotate, rate-limit or keep anything. That is
// journald's work.
package journal
