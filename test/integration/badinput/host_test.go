//go:build integration

package badinput

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// staged is what waits for a unit.
func staged(entry string) bool {
	return strings.HasPrefix(entry, "releases/2.0.0-") || strings.HasPrefix(entry, "staged ->")
}

const denyRefused = `polkit.addRule(function(action, subject) {
	if (action.id == "org.freedesktop.systemd1.manage-units" && action.lookup("unit") == "live@refused.service")
		return polkit.Result.NO;
	return polkit.Result.NOT_HANDLED;
});
`

// supervised is a service with a unit file of its own.
const supervised = `[Service]
Type=notify
ExecStart=/usr/bin/upgraderd supervise --root=%%S/upgraderd/%[1]s -- bin/%[1]s
ExecReload=/usr/bin/upgraderd handover
RuntimeDirectory=%%N
FileDescriptorStoreMax=64
KillMode=process
DynamicUser=yes
`

// hostFaults are of this machine: its units, its polkit, its disk.
func hostFaults() []fault {
	return []fault{
		{
			name: "removed", event: journal.UnitUnusable, leaves: staged,
			says: []string{"[UNIT_NOT_FOUND]", "removed.service does not exist", "Unit="},
			prepare: func(s *scene) {
				s.unit = "removed.service"
				writeRoot(s.t, s.m, "/etc/systemd/system/removed.service", fmt.Sprintf(supervised, s.name))
				writeRoot(s.t, s.m, "/etc/systemd/system/removed.socket", fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\n", s.port))
			},
			begin: func(s *scene) {
				s.m.Run("mv", "/etc/systemd/system/removed.service", "/root/")
				s.m.Run("systemctl", "daemon-reload")
				s.publish("2.0.0")
			},
			end: func(s *scene) {
				s.m.Run("mv", "/root/removed.service", "/etc/systemd/system/")
				s.m.Run("systemctl", "daemon-reload")
			},
		},
		{
			name: "masked", event: journal.UnitUnusable, leaves: staged,
			says: []string{"[UNIT_MASKED]", "systemctl unmask live@masked.service"},
			begin: func(s *scene) {
				// What systemctl mask does; but until it has also reloaded,
				// systemd says of every unit that it changed on disk.
				s.m.Run("ln", "-s", "/dev/null", "/etc/systemd/system/live@masked.service")
				s.m.Run("systemctl", "daemon-reload")
				s.publish("2.0.0")
			},
			end: func(s *scene) {
				s.m.Run("rm", "/etc/systemd/system/live@masked.service")
				s.m.Run("systemctl", "daemon-reload")
			},
		},
		{
			name: "misspelt", event: journal.UnitUnusable, leaves: staged,
			says: []string{"[UNIT_BAD]", "systemd-analyze verify live@misspelt.service"},
			begin: func(s *scene) {
				writeRoot(s.t, s.m, "/etc/systemd/system/live@misspelt.service.d/bad.conf", "[Service]\nExecStart=\n")
				s.m.Run("systemctl", "daemon-reload")
				s.publish("2.0.0")
			},
			end: func(s *scene) {
				s.m.Run("rm", "/etc/systemd/system/live@misspelt.service.d/bad.conf")
				s.m.Run("systemctl", "daemon-reload")
			},
		},
		{
			name: "refused", event: journal.UnitUnusable, leaves: staged,
			says: []string{"[AUTH_DENIED]", "reload", "live@refused.service", "polkit", "upgraderd install"},
			begin: func(s *scene) {
				writeRoot(s.t, s.m, "/etc/polkit-1/rules.d/00-refused.rules", denyRefused)
				s.m.Eventually("polkit has read the rule", func() bool {
					_, err := s.m.Machine.Run(s.t.Context(), "setpriv", "--reuid=upgraderd", "--regid=upgraderd", "--clear-groups", "--",
						"systemctl", "--no-ask-password", "reload", s.unit)
					return err != nil
				})
				s.publish("2.0.0")
			},
			end: func(s *scene) { s.m.Run("rm", "/etc/polkit-1/rules.d/00-refused.rules") },
		},
		{
			name: "full", event: journal.HostFailed,
			says:    []string{"[FS_NOSPACE]", stateDir + "full", "make room"},
			prepare: smallDisk,
			begin: func(s *scene) {
				s.m.Run("fallocate", "-l", "120M", stateDir+"full/ballast")
				s.publish("2.0.0")
			},
			end:    func(s *scene) { s.m.Run("rm", stateDir+"full/ballast") },
			leaves: func(entry string) bool { return strings.HasPrefix(entry, "ballast") },
		},
		{
			name: "filling", event: journal.HostFailed,
			says:    []string{"[FS_NOSPACE]"},
			lines:   2, // what failed is the fetch, and from then on the look before one
			prepare: smallDisk,
			begin: func(s *scene) {
				s.site.misbehave(s.site.onlyArtifact(func(w http.ResponseWriter, r *http.Request) {
					// There was room when it was asked for. This is not the
					// test's goroutine: what it meets is judged there.
					_, _ = s.m.Machine.Run(r.Context(), "sh", "-c", "head -c 1G /dev/zero >>"+stateDir+"filling/ballast")
					s.site.behave(w, r)
				}))
				s.publish("2.0.0")
			},
			end: func(s *scene) {
				s.site.misbehave(nil)
				s.m.Run("rm", stateDir+"filling/ballast")
			},
			leaves: func(entry string) bool { return strings.HasPrefix(entry, "ballast") },
		},
	}
}

// noPolkit takes away what decides what the daemon may do.
func noPolkit() fault {
	const mask = "/etc/systemd/system/polkit.service"
	return fault{
		name: "nopolkit", event: journal.UnitUnusable, leaves: staged,
		says: []string{"[AUTH_DENIED]", "reload live@nopolkit.service", "systemctl status polkit.service"},
		begin: func(s *scene) {
			s.m.Run("ln", "-s", "/dev/null", mask)
			s.m.Run("systemctl", "daemon-reload")
			s.m.Run("systemctl", "stop", "polkit.service")
			s.publish("2.0.0")
		},
		end: func(s *scene) {
			s.m.Run("rm", mask)
			s.m.Run("systemctl", "daemon-reload")
		},
	}
}

// smallDisk gives the target a disk of its own.
func smallDisk(s *scene) {
	s.m.Run("mkdir", "-p", stateDir+s.name)
	s.m.Run("mount", "-t", "tmpfs", "-o", "size=160M,mode=0755", "tmpfs", stateDir+s.name)
	s.m.Run("chown", "upgraderd:upgraderd", stateDir+s.name)
}
