package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	diff "github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// What the program knows about itself is shipped beside it, too: as man pages, and
// as what shells read to complete its arguments. The text around the tables of the
// pages stands in docs/man.

var update = flag.Bool("update", false, "write man pages and completions anew")

const shipped = "../../units"

// generated is a file below units that has to be what the program says.
func generated(t *testing.T, name string, text []byte) {
	t.Helper()
	file := filepath.Join(shipped, name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(string(have), string(text)); d != "" {
		t.Errorf("%s is not what the program says (-file +program); run this test with -update:\n%s", name, d)
	}
}

func TestCompletionFiles(t *testing.T) {
	root := rootCommand()
	for name, write := range map[string]func(*bytes.Buffer) error{
		"bash-completion/completions/upgraderd":    func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh/vendor-completions/_upgraderd":        func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish/vendor_completions.d/upgraderd.fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		generated(t, name, b.Bytes())
	}
}

func TestManPages(t *testing.T) {
	sources, err := filepath.Glob("../../docs/man/*.md")
	if err != nil || len(sources) == 0 {
		t.Fatalf("%d sources, %v", len(sources), err)
	}
	facts := manualFacts(t)
	for _, source := range sources {
		page := strings.TrimSuffix(filepath.Base(source), ".md")
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			var markdown bytes.Buffer
			if err := template.Must(template.New(page).Option("missingkey=error").Parse(string(text))).Execute(&markdown, facts); err != nil {
				t.Fatal(err)
			}
			section := filepath.Ext(page)[1:]
			file := "man/man" + section + "/" + page
			generated(t, file, md2man.Render(markdown.Bytes()))
			file = filepath.Join(shipped, file)
			// Beyond warnings are matters of style in the source, which nobody reads.
			if said, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", file).CombinedOutput(); err != nil || len(said) > 0 {
				t.Errorf("mandoc: %v\n%s", err, said)
			}
			cmd := exec.Command("man", "--warnings", "--local-file", file)
			cmd.Env = append(os.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8", "MAN_KEEP_FORMATTING=")
			var shown, complaints bytes.Buffer
			cmd.Stdout, cmd.Stderr = &shown, &complaints
			if err := cmd.Run(); err != nil || complaints.Len() > 0 || shown.Len() < 2000 {
				t.Errorf("man shows %d bytes, %v: %s", shown.Len(), err, &complaints)
			}
			if left := regexp.MustCompile(`\*\*|\{\{|<no value>|\]\(`).FindString(shown.String()); left != "" {
				t.Errorf("%q is left of the markup:\n%s", left, &shown)
			}
		})
	}
}

// manualFacts are the tables that the pages are made of.
func manualFacts(t *testing.T) map[string]any {
	t.Helper()
	root := rootCommand()
	var verbs []string
	for _, cmd := range root.Commands() {
		if !cmd.Hidden && cmd.Name() != "help" && cmd.Name() != "completion" {
			verbs = append(verbs, verbText(cmd))
		}
	}
	type status struct {
		Code    int
		Meaning string
	}
	var statuses []status
	for _, s := range exitStatuses() {
		statuses = append(statuses, status{s.code, literal(s.meaning)})
	}
	type message struct{ Name, ID, Level, Subject string }
	var messages []message
	for _, d := range journal.Events() {
		messages = append(messages, message{d.Name, d.ID, d.Priority(), fields(d.Subject)})
	}
	type key struct{ Name, Value, Help, Terms, Example string }
	type section struct {
		Name string
		Keys []key
	}
	var sections []section
	for _, k := range config.Keys() {
		if len(sections) == 0 || sections[len(sections)-1].Name != k.Section {
			sections = append(sections, section{Name: k.Section})
		}
		s := &sections[len(sections)-1]
		terms := k.Terms()
		s.Keys = append(s.Keys, key{k.Name, k.Value, inline(k.Help), inline(strings.ToUpper(terms[:1]) + terms[1:]), literal(k.Example)})
	}
	supervise, _, _ := root.Find([]string{"supervise"})
	handover, _, _ := root.Find([]string{"handover"})
	return map[string]any{
		"Verbs": verbs, "ExitStatuses": statuses, "Messages": messages, "Sections": sections, "SearchPath": config.SearchPath(),
		"Syntax":     chapter(t, "Where files are looked for") + chapter(t, "Syntax"),
		"Specifiers": chapter(t, "Specifiers"),
		"Supervise":  verbOf(supervise), "Handover": verbOf(handover),
	}
}

// chapter is one of the settings' reference, as a section of a page.
func chapter(t *testing.T, title string) string {
	t.Helper()
	_, rest, ok := strings.Cut(config.Reference(), "\n## "+title+"\n")
	if !ok {
		t.Fatalf("the reference has no chapter %q", title)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	var out []string
	for line := range strings.Lines(text) {
		// Tables become lists of terms: man pages have room for one column.
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch {
		case !strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "|-"):
			out = append(out, strings.TrimSuffix(inline(line), "\n"))
		case strings.HasPrefix(line, "| `"):
			out = append(out, inline(strings.TrimSpace(cells[0])), ": "+inline(strings.TrimSpace(cells[1])), "")
		}
	}
	return "# " + strings.ToUpper(title) + "\n" + strings.Join(out, "\n") + "\n"
}

type verb struct {
	Long            string
	Flags, Examples []string
}

func verbOf(cmd *cobra.Command) verb {
	v := verb{Long: literal(cmp.Or(cmd.Long, cmd.Short+"."))}
	cmd.InitDefaultHelpFlag()
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" {
			v.Flags = append(v.Flags, flagText(f))
		}
	})
	for line := range strings.Lines(cmd.Example) {
		v.Examples = append(v.Examples, strings.TrimSpace(line))
	}
	return v
}

// verbText is what the page of all verbs says of one. Those that have a page of
// their own are only named.
func verbText(cmd *cobra.Command) string {
	v := verbOf(cmd)
	use := strings.ReplaceAll(cmd.Use, "[flags]", "[FLAG...]")
	if len(v.Flags) > 0 && !strings.Contains(use, "--") {
		use += " [FLAG...]"
	}
	text := "### " + literal(use) + "\n\n"
	if cmd.Name() == "supervise" {
		return text + literal(cmd.Short) + ", see **upgraderd-supervise**(1).\n"
	}
	text += v.Long + "\n\n" + strings.Join(v.Flags, "\n")
	if len(v.Examples) > 0 {
		text += "\nFor example:\n\n    " + strings.Join(v.Examples, "\n    ") + "\n"
	}
	return text
}

func flagText(f *pflag.Flag) string {
	value, usage := pflag.UnquoteUsage(f)
	name := "**--" + f.Name + "**"
	if f.Shorthand != "" {
		name = "**-" + f.Shorthand + "**, " + name
	}
	if value != "" {
		name += " *" + strings.ToUpper(value) + "*"
	}
	usage = strings.Join(strings.Fields(usage), " ")
	if zero := f.DefValue == "" || f.DefValue == "false" || f.DefValue == "0" || f.DefValue == "[]"; !zero {
		usage += " (default " + f.DefValue + ")"
	}
	return name + "\n: " + literal(usage) + ".\n"
}

// literal is text that means no markup.
func literal(text string) string {
	return regexp.MustCompile("[\\\\*_<>\\[\\]`]").ReplaceAllString(text, `\$0`)
}

// inline is Markdown of the tables, with code in bold and links to other files of
// the documentation by their names.
func inline(text string) string {
	text = regexp.MustCompile(`\[[^]]*\]\(([^)]+\.md)(#[^)]*)?\)`).ReplaceAllString(text, "*/usr/share/doc/upgraderd/$1*")
	parts := strings.Split(text, "`")
	for i := range parts {
		if i%2 == 1 && !strings.HasPrefix(text, "    ") {
			parts[i] = "**" + literal(parts[i]) + "**"
		}
	}
	return strings.Join(parts, "")
}

// fields has what a message fills in look like what stands for something.
func fields(text string) string {
	parts := regexp.MustCompile(`@UPGRADERD_([A-Z_]+)@`).Split(text, -1)
	names := regexp.MustCompile(`@UPGRADERD_([A-Z_]+)@`).FindAllStringSubmatch(text, -1)
	var b strings.Builder
	for i, part := range parts {
		b.WriteString(literal(part))
		if i < len(names) {
			fmt.Fprintf(&b, "*%s*", literal(names[i][1]))
		}
	}
	return b.String()
}
