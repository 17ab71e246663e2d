package unitlint

import (
	"fmt"
	"strings"
)

// Reference gives docs/unit-checks.md, made from the table that the checks are
// run by.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	rules := Rules()
	for _, scope := range []Scope{Any, Supervised, Sockets, Own} {
		fmt.Fprintf(&b, "\n## %s\n", strings.Replace(string(scope), "upgraderd supervise", "`upgraderd supervise`", 1))
		for _, r := range rules {
			if r.Of != scope {
				continue
			}
			severity := "Warning"
			if r.Error {
				severity = "Error or warning"
			}
			fmt.Fprintf(&b, "\n### %s\n\n%s. %s\n\nFix: %s\n", r.Code, severity, r.Help, r.Fix)
		}
	}
	return b.String()
}

const referenceHead = `# Checks of units

<!-- Made from the table in upgrader/unitlint by "go test ./upgrader/unitlint -update"; edit it there. -->

` + "`upgraderd verify`" + ` reads the unit of each target whose .upgrade file is in order, and the unit's sockets: the one of its name,
those in ` + "`Sockets=`" + `, and those whose ` + "`Service=`" + ` names it. It says what would lose connections or keep a bad release, with
the line that counts or, where a setting is missing, the section it belongs to, and what to write.

    /etc/systemd/system/app.service:8: warning: with KillMode=mixed systemd kills the workers … [UNIT_KILL_MODE]
    	hint: write KillMode=process here

An error is what makes the target's ` + "`Swap=`" + ` impossible, lets the daemon's own user run the service, or certainly loses connections;
the exit status is then 1. All else is a warning. Files are read as systemd reads them, below ` + "`--root`" + ` too: search path, aliases,
masks, templates and drop-ins, and the defaults of ` + "`system.conf`" + `. After a change, run ` + "`systemctl daemon-reload`" + `.
`
