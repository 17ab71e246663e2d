package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/upgraderd/upgraderd/upgrader/advice"
)

// nameMax bounds a target's name in a call; a file's name has no more.
const nameMax = 255

// Structures of answers.
type (
	targetEntry struct { // (ssso)
		Name, Unit, State string
		Path              dbus.ObjectPath
	}
	jobEntry struct { // (usso)
		ID           uint32
		Type, Target string
		Path         dbus.ObjectPath
	}
)

func (l *link) managerFace() face {
	job := []introspect.Arg{arg("id", "u"), arg("job", "o"), arg("target", "s")}
	target := []introspect.Arg{arg("name", "s"), arg("target", "o")}
	return face{managerFace, []method{
		{"ListTargets", "targets", func(dbus.Message) ([]targetEntry, *dbus.Error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			all := []targetEntry{}
			for _, name := range slices.Sorted(maps.Keys(l.targets)) {
				st := l.targets[name].status
				all = append(all, targetEntry{name, st.Unit, string(st.State), targetPath(name)})
			}
			return all, nil
		}},
		{"GetTarget", "name target", func(_ dbus.Message, name string) (dbus.ObjectPath, *dbus.Error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(name) > nameMax || l.targets[name] == nil {
				return "/", refuse(errorNoTarget, advice.Give(fmt.Errorf("no target %.40q is followed", name), "upgraderd status lists those that are"))
			}
			return targetPath(name), nil
		}},
		{"ListJobs", "jobs", func(dbus.Message) ([]jobEntry, *dbus.Error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			all := []jobEntry{}
			for _, j := range l.sorted() {
				all = append(all, jobEntry{j.id, string(j.order.Verb), j.target, jobPath(j.id)})
			}
			return all, nil
		}},
		{"GetJob", "id job", func(_ dbus.Message, id uint32) (dbus.ObjectPath, *dbus.Error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.jobs[id] == nil {
				return "/", refusal(errorNoJob, "there is no job %d, or it is over", id)
			}
			return jobPath(id), nil
		}},
		{"Reload", "", func(m dbus.Message) *dbus.Error {
			c := callerOf(m)
			leave, full := l.enter(c)
			if full != nil {
				return full
			}
			defer leave()
			if refused := l.permit(c, "reload", map[string]string{}); refused != nil {
				return refused
			}
			ctx, cancel := context.WithTimeout(l.ctx, greetTimeout)
			defer cancel()
			if err := l.o.Reload(ctx); err != nil {
				return failure(err)
			}
			return nil
		}},
	}, []signal{
		{"TargetNew", target},
		{"TargetRemoved", target},
		{"JobNew", job},
		{"JobRemoved", append(slices.Clone(job), arg("result", "s"), arg("verdict", "s"), arg("reason", "s"))},
	}, []property{{name: "Version", zero: "", emits: "const"}}}
}

func inJSON(v any) (string, *dbus.Error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", failure(err)
	}
	return string(text), nil
}
