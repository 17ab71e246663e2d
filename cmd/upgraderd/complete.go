package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// What a shell offers where an argument is to be typed. It reads files alone, and
// those that this user may read: no source is asked, and no daemon, and what
// cannot be read is not offered.

// completing has the shell offer, for all verbs below root, directories and files to
// flags that take them, and files to no argument that a verb has not asked them for.
func completing(root *cobra.Command) {
	root.CompletionOptions.HiddenDefaultCmd = true
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	offers := map[string]cobra.ShellCompDirective{
		"directory": cobra.ShellCompDirectiveFilterDirs,
		"file":      cobra.ShellCompDirectiveDefault,
		"key":       cobra.ShellCompDirectiveDefault,
	}
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			what, _ := pflag.UnquoteUsage(f)
			if directive, ok := offers[what]; ok {
				_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(nil, directive)) // once for each
			}
		})
	}
}

// completion offers what fits to word, behind the arguments that stand already.
// What comes after a tab describes it.
type completion func(at scope, args []string) []string

// complete makes one of completions, for as many arguments. Behind them the last
// goes on, if the verb takes any number.
func complete(many bool, each ...completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		n := len(args)
		if n >= len(each) {
			if !many {
				return nil, directive
			}
			n = len(each) - 1
		}
		if each[n] == nil { // only the shell knows
			return nil, cobra.ShellCompDirectiveDefault
		}
		root := "/"
		if f := cmd.Flags().Lookup("root"); f != nil {
			root = f.Value.String()
		}
		at, err := scopeOf(cmd, root)
		if err != nil {
			return nil, directive
		}
		var fit []string
		for _, c := range each[n](at, args) {
			value, _, _ := strings.Cut(c, "\t")
			if strings.HasPrefix(value, word) && !slices.Contains(args, value) {
				fit = append(fit, c)
			}
		}
		return fit, directive
	}
}

// orFiles has the shell offer files where c has nothing.
func orFiles(c cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		fit, directive := c(cmd, args, word)
		if len(fit) == 0 {
			directive = cobra.ShellCompDirectiveDefault
		}
		return fit, directive
	}
}

// targetNames are all targets, broken ones left out.
func targetNames(at scope, _ []string) []string {
	targets, _ := at.files().PeekAll()
	var names []string
	for _, t := range targets {
		names = append(names, t.Name+"\t"+t.Unit)
	}
	return names
}

// versionsOnDisk are those that the target in the first argument has here, the
// newest first.
func versionsOnDisk(at scope, args []string) []string {
	return versionsWhere(at, args, func(r upgrader.Listed) bool { return r.OnDisk })
}

// versionsKnown are, besides, those that its source offered when the daemon asked it
// last, and what is known for another reason.
func versionsKnown(at scope, args []string) []string {
	return versionsWhere(at, args, func(upgrader.Listed) bool { return true })
}

func versionsWhere(at scope, args []string, wanted func(upgrader.Listed) bool) []string {
	l, _ := upgrader.ReadList(at.state(), filepath.Base(args[0])) // a name that is a path is none
	return offer(l.Releases, wanted)
}

// offer has two digests of one version, which lie beside each other, offered once.
func offer(releases []upgrader.Listed, wanted func(upgrader.Listed) bool) []string {
	var versions []string
	last := ""
	for _, r := range releases {
		if wanted(r) && r.Version != last {
			versions = append(versions, r.Version+"\t"+listedAs(r))
			last = r.Version
		}
	}
	return versions
}

// listedAs describes a version in a word or two.
func listedAs(r upgrader.Listed) string {
	switch {
	case slices.Contains(r.Links, string(store.Current)):
		return "current"
	case r.KnownBad != "":
		return "known bad"
	case r.Skipped:
		return "skipped"
	case r.OnDisk:
		return "on disk"
	case r.Offered:
		return "at the source"
	}
	return "known"
}

// services are the units of that kind that have a file, templates left out.
func services(at scope, _ []string) []string {
	var names []string
	for _, dir := range at.Units {
		entries, err := os.ReadDir(filepath.Join(at.root, dir))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".service") && !strings.Contains(name, "@.") {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// attempts are the numbers of those that are remembered, the last first.
func attempts(at scope, args []string) []string {
	all, err := upgrader.History(at.state(), filepath.Base(args[0]))
	if err != nil {
		return nil
	}
	var numbers []string
	for _, a := range slices.Backward(all) {
		numbers = append(numbers, strconv.Itoa(a.Number)+"\t"+change(a)+", "+attemptVerdict(a))
	}
	return numbers
}
