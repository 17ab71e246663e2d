package journal

import (
	"io"
	"strings"
)

// WriteCatalog writes the message catalog
// (https://systemd.io/CATALOG) of all events to w.
func WriteCatalog(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Message catalog of upgraderd, generated from its event table.\n")
	for _, d := range Events() {
		b.WriteString("\n-- " + d.ID + "\n")
		b.WriteString("Subject: " + d.Subject + "\n")
		b.WriteString("Defined-By: upgraderd\n")
		b.WriteString("Support: https://github.com/upgraderd/upgraderd/issues\n")
		if d.Body != "" {
			b.WriteString("\n" + d.Body + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
