package unitlint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/unitlint"
)

// What upgraderd verify does with a target that is whole.
func ExampleCheck() {
	root, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "etc/systemd/system")
	for name, text := range map[string]string{
		"app.service": "[Unit]\nStartLimitIntervalSec=0\nOnFailure=upgraderd-failed@app.service\n[Service]\nExecStart=/opt/app\nUser=app\n",
		"app.socket":  "[Socket]\nListenStream=8080\nBacklog=128\nTriggerLimitIntervalSec=0\n",
	} {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, d := range unitlint.Check(root, &upgrader.Target{Name: "app", Unit: "app.service"}) {
		fmt.Printf("%s\n  %s\n", strings.TrimPrefix(d.String(), root), d.Hint)
	}
	// Output:
	// /etc/systemd/system/app.service:4: warning: with Restart=no a service that crashed is not started again (Restart= is missing) [UNIT_RESTART]
	//   write Restart=on-failure below [Service] in a drop-in: systemctl edit app.service
	// /etc/systemd/system/app.socket:3: warning: only 128 connections wait while the service starts; clients beyond that wait for seconds or are refused [SOCKET_BACKLOG]
	//   write Backlog=4096 here
}
