//go:build integration

package upgrade

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/upgraderd/upgraderd/test/integration/kit"
)

// deploys is the end of TestImport: releases come by one command, as scripts do it.
func deploys(t *testing.T, m *kit.Machine, source *kit.Source, stick string) {
	t.Helper()
	ok := func(says string, argv ...string) {
		t.Helper()
		if out := m.Run(append([]string{"upgraderd", "deploy", "hello"}, argv...)...); !strings.HasSuffix(out, says) {
			t.Errorf("deploy %q: got %q, want %q", argv, out, says)
		}
	}
	bad := func(says string, argv ...string) {
		t.Helper()
		if out := m.Fails(append([]string{"upgraderd", "deploy", "hello"}, argv...)...); !strings.Contains(out, says) {
			t.Errorf("deploy %q: got %q, want %q", argv, out, says)
		}
	}
	source.Publish("hello-5.0.0", kit.Hello(t, "5.0.0", ""))
	m.Run("cp", stick+"/hello-5.0.0", stick+"/built")
	ok("hello: 5.0.0 runs, and is good", stick+"/built", "--version=5.0.0")
	run := m.Property(unit, "InvocationID")
	ok("hello: 5.0.0 already runs", stick+"/built", "--version=5.0.0")
	ok("hello: 5.0.0 already runs", stick)
	if got := m.Property(unit, "InvocationID"); got != run {
		t.Error("what runs was started anew")
	}
	bad("these are the bytes of 5.0.0", stick+"/built", "--version=5.0.1")
	bad("--version=VERSION", stick+"/built")
	bad("no such file", "/root/nothing")
	bad("older than 5.0.0", stick+"/hello-4.0.0")

	// One that is bad does not stay, and the script hears why.
	source.Publish("hello-5.1.0", kit.Hello(t, "5.1.0", "crash"))
	bad("deploy 5.1.0 to hello: refused: ", stick)
	bad("known bad", stick)
	if got := current(m); !strings.HasPrefix(got, "5.0.0-") {
		t.Errorf("current is %s, want 5.0.0", got)
	}

	// What does not run is started.
	m.Run("systemctl", "stop", "live@hello.socket", unit)
	ok("("+current(m)+")", stick+"/hello-5.0.0")
	m.Run("systemctl", "stop", unit)
	source.Publish("hello-6.0.0", kit.Hello(t, "6.0.0", ""))
	m.Run("cp", "-r", stick, "/root/forged") // by who may deploy, and cannot sign
	m.Run("sh", "-c", "echo >> /root/forged/hello-6.0.0")
	bad("hello-6.0.0", "/root/forged/hello-6.0.0")
	m.Run("rm", "-r", "/root/forged")
	if got := m.Property(unit, "ActiveState"); got != "inactive" {
		t.Errorf("the unit is %s, by a release that nobody vouches for", got)
	}
	ok("hello: 6.0.0 runs, and is good", stick+"/hello-6.0.0")
	if got := m.Property(unit, "ActiveState"); got != "active" {
		t.Errorf("the unit is %s", got)
	}

	// As the documentation has ssh and sudo run it.
	page, err := os.ReadFile("../../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	forced := regexp.MustCompile(`(?m)^    restrict,command="sudo -n ([^"]+)" ssh-`).FindSubmatch(page)
	allowed := regexp.MustCompile(`(?m)^    deploy ALL=\(root\) NOPASSWD: (.*)$`).FindSubmatch(page)
	if forced == nil || allowed == nil || string(forced[1]) != string(allowed[1]) {
		t.Fatalf("ssh runs %q, sudo allows %q", forced, allowed)
	}
	source.Publish("hello-7.0.0", kit.Hello(t, "7.0.0", ""))
	m.Run("rm", stick+"/hello-5.1.0")
	over := "tar -C " + stick + " -c . | " + string(forced[1])
	for _, says := range []string{"hello: 7.0.0 runs, and is good", "hello: 7.0.0 already runs"} {
		if out := m.Run("sh", "-c", over); !strings.HasSuffix(out, says) {
			t.Errorf("%s: got %q, want %q", over, out, says)
		}
	}
	if out := m.Fails("sh", "-c", "echo | "+string(forced[1])); !strings.Contains(out, "unpack standard input") {
		t.Errorf("got %q", out)
	}
	if left := m.Run("sh", "-c", "ls -d /var/tmp/upgraderd-* 2>/dev/null || true"); left != "" {
		t.Errorf("left %s", left)
	}

	// One deploys at a time, and who waits has ordered nothing and takes up no room.
	m.Run("sh", "-c", "setsid flock /var/lib/upgraderd/hello/deploy.lock sleep infinity > /dev/null 2>&1 & echo $! > /run/holder")
	m.Eventually("somebody deploys", func() bool {
		return strings.Contains(m.Run("sh", "-c", "flock --nonblock /var/lib/upgraderd/hello/deploy.lock true; echo $?"), "1")
	})
	source.Publish("hello-8.0.0", kit.Hello(t, "8.0.0", ""))
	m.Run("sh", "-c", "(upgraderd deploy hello "+stick+"; echo ended $?) > /run/waiting 2>&1 &")
	m.Eventually("another waits", func() bool { return strings.Contains(m.Run("cat", "/run/waiting"), "somebody else deploys") })
	if left := m.Run("sh", "-c", "ls -d /var/lib/upgraderd/hello/order.json /var/lib/upgraderd/hello/.import-* 2>/dev/null || true"); left != "" {
		t.Errorf("who waits left %s", left)
	}
	m.Run("sh", "-c", "kill -- -$(cat /run/holder)")
	m.Eventually("its turn comes", func() bool { return strings.Contains(m.Run("cat", "/run/waiting"), "ended ") })
	if out := m.Run("cat", "/run/waiting"); !strings.Contains(out, "8.0.0 runs, and is good") || !strings.HasSuffix(out, "ended 0") {
		t.Errorf("got %q", out)
	}
	m.Run("systemctl", "stop", "upgraderd.service")
	bad("systemctl start upgraderd.service", stick)
	m.Run("systemctl", "start", "upgraderd.service", "live@hello.socket")
}
