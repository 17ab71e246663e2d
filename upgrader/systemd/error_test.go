package systemd

import (
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// systemd answers with what the bus said about starting polkit. That is not
// about the unit, and its hint must not be either.
func TestPolkitsOwnTrouble(t *testing.T) {
	const masked, missing = "org.freedesktop.systemd1.UnitMasked", "org.freedesktop.systemd1.NoSuchUnit"
	tests := []struct{ unit, name, text, code string }{
		{"app.service", masked, "Unit polkit.service is masked.", CodeDenied},
		{"app.service", missing, "Unit polkit.service not found.", CodeDenied},
		{"app.service", masked, "Unit app.service is masked.", CodeMasked},
		{"polkit.service", masked, "Unit polkit.service is masked.", CodeMasked},
	}
	for _, tt := range tests {
		err := classify("reload", tt.unit, dbus.Error{Name: tt.name, Body: []any{tt.text}})
		if !HasCode(err, tt.code) {
			t.Errorf("%s, %s: got %v, want %s", tt.unit, tt.text, err, tt.code)
		}
		if tt.code == CodeDenied && !strings.HasSuffix(err.Error(), "systemctl status polkit.service") {
			t.Errorf("%s, %s: the hint leads astray: %v", tt.unit, tt.text, err)
		}
	}
}
