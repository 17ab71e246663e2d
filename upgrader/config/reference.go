package config

import (
	"fmt"
	"io"
	"strings"
)

// Reference gives the manual of .upgrade files in Markdown, made from the same
// table as the parser.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for i, dir := range SearchPath() {
		fmt.Fprintf(&b, "%d. `%s/NAME.upgrade`\n", i+1, dir)
	}
	b.WriteString(referenceSyntax)
	keys := Keys()
	section := ""
	for _, k := range keys {
		if k.Section != section {
			section = k.Section
			fmt.Fprintf(&b, "\n## [%s]\n", section)
		}
		fmt.Fprintf(&b, "\n### %s=\n\n", k.Name)
		fmt.Fprintf(&b, "`%s=%s` — %s\n\n%s\n\nExample: `%s=%s`\n", k.Name, k.Value, k.Terms(), k.Help, k.Name, k.Example)
	}
	b.WriteString(referenceSpecifiers)
	for _, s := range specifiers() {
		fmt.Fprintf(&b, "| `%%%s` | %s |\n", s.name, s.meaning)
	}
	b.WriteString("| `%%` | a percent sign |\n")
	return b.String()
}

// Terms say in Markdown whether a key is needed, how often it may come, and what
// holds without it.
func (k Key) Terms() string {
	var terms []string
	switch {
	case k.Required && k.Unless != "":
		terms = append(terms, "required, unless `"+k.Unless+"=no`")
	case k.Required:
		terms = append(terms, "required")
	case k.Default != "":
		terms = append(terms, "default `"+k.Default+"`")
	default:
		terms = append(terms, "optional")
	}
	if k.List {
		terms = append(terms, "assignments add up")
	}
	return strings.Join(terms, "; ")
}

// Help writes what is known about keys for a terminal: all of them, or those
// whose name (SECTION.NAME or NAME, in any case) is given. It is false, with a
// suggestion written, if there is none of a name.
func Help(w io.Writer, names ...string) (bool, error) {
	var b strings.Builder
	keys := Keys()
	all := true
	match := func(k Key, name string) bool {
		name = strings.TrimSuffix(name, "=")
		return strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Section+"."+k.Name)
	}
	for _, k := range keys {
		if len(names) == 0 {
			k.help(&b)
		}
	}
	for _, name := range names {
		found := false
		var known []string
		for _, k := range keys {
			known = append(known, k.Name)
			if match(k, name) {
				k.help(&b)
				found = true
			}
		}
		if !found {
			fmt.Fprintf(&b, "%s is no key; %s\n", oneLine(cut(name)), didYouMean(name, known))
			all = false
		}
	}
	_, err := io.WriteString(w, b.String())
	return all, err
}

const helpWidth = 76

func (k Key) help(b *strings.Builder) {
	fmt.Fprintf(b, "[%s] %s=%s\n", k.Section, k.Name, k.Value)
	plain := strings.NewReplacer("`", "")
	line := "   "
	for _, word := range strings.Fields(plain.Replace(k.Help + " (" + k.Terms() + "; for example " + k.Example + ")")) {
		if len(line)+1+len(word) > helpWidth {
			b.WriteString(line + "\n")
			line = "   "
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// Sample gives a file with every key: the required ones to be edited, the
// others as comments with their default, or an example where there is none.
func Sample() string {
	var b strings.Builder
	section := ""
	for _, k := range Keys() {
		if k.Section != section {
			if section != "" {
				b.WriteByte('\n')
			}
			section = k.Section
			fmt.Fprintf(&b, "[%s]\n", section)
		}
		switch {
		case k.Required:
			fmt.Fprintf(&b, "%s=%s\n", k.Name, k.Example)
		case k.Default != "":
			fmt.Fprintf(&b, "#%s=%s\n", k.Name, k.Default)
		default:
			fmt.Fprintf(&b, "#%s=%s\n", k.Name, k.Example)
		}
	}
	return b.String()
}

const referenceHead = `# Keys of .upgrade files

<!-- Made from the table in upgrader/config by "go test ./upgrader/config -update"; edit it there. -->

A target is one file ` + "`NAME.upgrade`" + `: what follows which source, and which unit runs it. NAME has letters, digits and
` + "`_ . - @`" + `, and is the name of the target everywhere. ` + "`upgraderd verify`" + ` checks the files.

    [Upgrade]
    Unit=app.service

    [Source]
    Path=https://example.org/app
    MatchPattern=app_@v.tar.zst
    Key=/etc/upgraderd/app.pub

    [Confirm]
    Probe=http://127.0.0.1:8080/healthz

## Where files are looked for

The first of these that exists is the file of the target:

`

const referenceSyntax = `
A symbolic link to ` + "`/dev/null`" + `, or an empty file, masks those behind it. Then come the drop-ins, ` + "`NAME.upgrade.d/*.conf`" + ` in all
of these directories: sorted by file name, of two with one name that of the earlier directory. They change single keys.

` + "`PREFIX@.upgrade`" + ` is a template. It follows nothing; a symbolic link ` + "`PREFIX@INSTANCE.upgrade`" + ` to it is a target, with its own
drop-ins and those of ` + "`PREFIX@.upgrade.d/`" + `.

Only root decides what is upgraded: files, drop-ins, files of keys and certificates, the directories on the way to them and
symbolic links count only if root owns them and neither group nor others may write them. Files larger than 1 MiB are refused. With
` + "`--user`" + ` the files are in ` + "`~/.config/upgraderd`" + `, and their user's count beside root's: see [user-units.md](user-units.md).

## Syntax

That of systemd units, systemd.syntax(7): sections in brackets, ` + "`Key=value`" + ` lines, comments on lines of their own that begin with
` + "`#`" + ` or ` + "`;`" + `, a backslash at the end to continue a line. A later assignment replaces an earlier one; where the reference says
"assignments add up", values form a list. An empty assignment takes back what was said before it, down to the default. Sections and
keys that begin with ` + "`X-`" + ` are for others and are not read. Anything else that is unknown is an error, reported with file and
line; the target is then not followed, and the others are.

* **TIME** is a time span of systemd.time(7), in seconds where no unit is given: ` + "`90`, `1min 30s`, `1.5h`" + `. At most a year.
* **BYTES** may have K, M, G or T behind it, in steps of 1024: ` + "`200M`, `1.5G`" + `.
* **VERSION** has up to 64 letters, digits and ` + "`.+~_^-`" + `, and begins with a letter or digit. Versions are ordered as by
  ` + "`systemd-analyze compare-versions`" + `.
* **Words** are split at white space; quotes hold one together, and C escapes such as ` + "`\\x20`" + ` are undone.
`

const referenceSpecifiers = `
## Specifiers

These are replaced in the values that name something (units, files, URLs, patterns, versions, commands, probes), each inside its word.

| in a value | stands for |
|---|---|
`
