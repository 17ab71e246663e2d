package bus

import (
	"log/slog"
	"slices"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// Logs is what org.freedesktop.LogControl1(5) tells and sets: that is how
// `systemctl service-log-level` works.
type Logs struct {
	// Level is the least that is written. Nil: it cannot be set.
	Level *slog.LevelVar
	// Target is where it is written: "journal" or "console".
	Target string
	// Identifier is SYSLOG_IDENTIFIER.
	Identifier string
}

type level struct {
	name string
	slog.Level
}

// levels are those of syslog(3), by name, the most urgent first. What slog does not
// tell apart is the nearest one that is written no less.
func levels() []level {
	return []level{
		{"emerg", journal.LevelCritical}, {"alert", journal.LevelCritical}, {"crit", journal.LevelCritical},
		{"err", slog.LevelError}, {"warning", slog.LevelWarn}, {"notice", journal.LevelNotice},
		{"info", slog.LevelInfo}, {"debug", slog.LevelDebug},
	}
}

func (l *link) logFace() face {
	return face{logFace, nil, nil, []property{
		{name: "LogLevel", zero: "", emits: "false", write: true},
		{name: "LogTarget", zero: "", emits: "false", write: true},
		{name: "SyslogIdentifier", zero: "", emits: "false"},
	}}
}

func (l *link) readLogs(dbus.ObjectPath) map[string]any {
	name := "info"
	if l.o.Logs.Level != nil {
		now := l.o.Logs.Level.Level()
		for _, of := range levels() {
			if of.Level >= now {
				name = of.name // the least urgent that is written
			}
		}
	}
	return map[string]any{"LogLevel": name, "LogTarget": l.o.Logs.Target, "SyslogIdentifier": l.o.Logs.Identifier}
}

// writeLogs is root's alone: it is about the daemon, and no verb of its.
func (l *link) writeLogs(m dbus.Message, name string, value dbus.Variant) *dbus.Error {
	uid, refused := l.uid(callerOf(m))
	if refused != nil {
		return refused
	}
	if uid != 0 {
		return refusal(errorAccessDenied, "only root may set %s", name)
	}
	wanted, _ := value.Value().(string)
	if name == "LogTarget" {
		if wanted != l.o.Logs.Target && wanted != "auto" {
			return refusal(errorInvalidArgs, "the log goes to %s, and to nothing else", l.o.Logs.Target)
		}
		return nil
	}
	all := levels()
	i := slices.IndexFunc(all, func(of level) bool { return of.name == wanted })
	if i < 0 || l.o.Logs.Level == nil {
		return refusal(errorInvalidArgs, "%.40q is no level; they are emerg, alert, crit, err, warning, notice, info and debug", wanted)
	}
	l.o.Logs.Level.Set(all[i].Level)
	l.o.Log.Info("log level", slog.String("level", wanted))
	return nil
}
