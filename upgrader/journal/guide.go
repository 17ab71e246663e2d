package journal

import (
	"io"
	"regexp"
	"strings"
)

// WriteGuide writes all events to w in Markdown, for whoever wants to know before
// it happens: what the journal says, and what catalog entry explains it.
func WriteGuide(w io.Writer) error {
	var b strings.Builder
	b.WriteString(guideHead)
	for _, d := range Events() {
		b.WriteString("\n## " + d.Name + "\n\n")
		b.WriteString(named(d.Subject) + ".\n\n")
		b.WriteString("    " + sentenceFact.ReplaceAllStringFunc(d.Text, strings.ToUpper) + "\n\n")
		for line := range strings.Lines(d.Body) {
			b.WriteString(named(strings.TrimSuffix(line, "\n")) + "\n\n")
		}
		b.WriteString("Priority " + d.Priority() + ", `MESSAGE_ID=" + d.ID + "`\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var (
	sentenceFact = regexp.MustCompile(`\{[a-z_]+\}`)
	catalogFact  = regexp.MustCompile(`@(?:UPGRADERD_)?([A-Z_]+)@`)
)

// named has fields as they are called in sentences.
func named(text string) string {
	return catalogFact.ReplaceAllString(text, "`{$1}`")
}

// Priority is the event's level by its name in syslog(3).
func (d Description) Priority() string {
	return [...]string{2: "critical", "error", "warning", "notice", "info", "debug"}[priority(d.Level)]
}

const guideHead = `# What happens when …

<!-- Made from the table in upgrader/journal by "go test ./upgrader/journal -update"; edit it there. -->

Each thing that upgraderd does, and each that goes wrong, is one line in the journal, with a name and a message id that stay. This page has
them all, in about the order in which they come: what it is about, the line, what upgraderd does then, and what there is to do. On a host,
` + "`journalctl -x`" + ` says the same with the facts filled in, and ` + "`upgraderd status`" + ` says how it stands.

A word in braces is a fact, which the entry has as a field, too: ` + "`{TARGET}` is `UPGRADERD_TARGET=`" + `. To be told of an event, match its id:

    journalctl -f MESSAGE_ID=ID UPGRADERD_TARGET=app

Whichever line it is, these hold: a service goes on with what it runs until something newer was ready; a release that was undone does not come back by
itself; and what was begun is finished or reverted by the next start of the daemon, or without one by ` + "`upgraderd-guard@.timer`" + `.
`
