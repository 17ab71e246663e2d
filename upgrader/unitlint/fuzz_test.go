package unitlint

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upgraderd/upgraderd/upgrader"
)

// Whatever stands in a unit's files: no panic, the same answer twice, findings
// of one line that point into a file of the unit, and no error for a rule that
// claims to have warnings only.
func FuzzCheck(f *testing.F) {
	for _, s := range [][3]string{
		{strings.TrimPrefix(strings.Split(whole, "-- app.socket --")[0], "\n-- app.service --\n"), "[Socket]\nListenStream=1\n", "handover"},
		{"[Service]\nExecStart=a supervise --root\n", "[Service]\nKillMode=none\n", "restart"},
		{"[Service]\nExecStart=a supervise --drain-timeout=-1s --listen\nExecStart=\nExecStart=@- ' supervise", "Backlog=1", ""},
		{"[Service]\nExecStart=\"a\" supervise --root=%i%I%j%J%N%%%\nUser=%i\nStateDirectory=../upgraderd ./\n", "[Unit]\nOnFailure=upgraderd-failed@ upgraderd-failed@\\x\n", "auto"},
		{"[Service]\nBindPaths=/:\nReadWritePaths=+-/\nTimeoutSec=infinity\nRestartSec=99999999999999\n", "[Socket]\nBacklog=99999999999\n\\", "none"},
		{"\x00\xff[", "", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, service, more, swap string) {
		for _, part := range []string{service, more} {
			if strings.Contains(part, "-- ") {
				t.Skip("the archive's own syntax")
			}
		}
		root := plant(t, "-- a-b@i.service --\n"+service+"\n-- a-@.service.d/x.conf --\n"+more+"\n-- a-b@.socket --\n"+more+"\n-- s.socket --\n[Socket]\nService=a-b@i.service\n")
		tg := target("b", "a-b@i.service", upgrader.Swap(swap))
		ds := Check(root, tg)
		if diff := cmp.Diff(ds, Check(root, tg)); diff != "" {
			t.Error(diff)
		}
		rules := Rules()
		for _, d := range ds {
			i := slices.IndexFunc(rules, func(r Rule) bool { return r.Code == d.Code })
			if i < 0 || !d.Warning && !rules[i].Error {
				t.Errorf("%+v", d)
			}
			if strings.ContainsAny(d.Message+d.Hint, "\n\r\x1b") || !strings.HasPrefix(d.File, root) && d.File != tg.File {
				t.Errorf("%+v", d)
			}
		}
	})
}
