package bus

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upgraderd/upgraderd/fetcher"
	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/advice"
	"github.com/upgraderd/upgraderd/upgrader/journal"
)

// Result is how a job ended.
type Result string

const (
	ResultDone      Result = "done"      // as its order asked
	ResultFailed    Result = "failed"    // the verdict and the reason tell why
	ResultCancelled Result = "cancelled" // taken back in time
	ResultReplaced  Result = "replaced"  // a later order took the place of it
	ResultDropped   Result = "dropped"   // its target is not followed any more
)

// States of a job.
const (
	jobWaiting = "waiting"
	jobRunning = "running"
)

// job is the bus's face of an order.
type job struct {
	id     uint32
	target string
	order  upgrader.Order
	missed bool // the order was neither there nor answered when it was looked for
	props  map[string]any
}

func jobProperties() []property {
	c := func(name string, zero any) property { return property{name: name, zero: zero, emits: "const"} }
	return []property{
		c("Id", uint32(0)), c("Type", ""), c("Target", ""), c("TargetPath", dbus.ObjectPath("/")), c("Order", ""), c("Version", ""),
		{name: "State", zero: "", emits: "true"}, {name: "Progress", zero: uint32(0), emits: "true"},
	}
}

// jobProps is called with the lock held.
func (s *Server) jobProps(j *job) map[string]any {
	state, percent := jobWaiting, 0
	if t := s.targets[j.target]; t != nil && t.status.Begun && t.status.Order.ID == j.order.ID {
		state = jobRunning
		if t.status.Progress != nil {
			percent, _ = t.status.Progress.Percent()
		}
	}
	return map[string]any{
		"Id": j.id, "Type": string(j.order.Verb), "Target": j.target, "TargetPath": targetPath(j.target),
		"Order": j.order.ID, "Version": j.order.Version, "State": state, "Progress": uint32(percent),
	}
}

// jobOf is the newest job of a target, nil if there is none. It is called with the
// lock held.
func (s *Server) jobOf(name string) *job {
	var found *job
	for _, j := range s.jobs {
		if j.target == name && (found == nil || j.id > found.id) {
			found = j
		}
	}
	return found
}

// adopt makes a job of an order, unless it has one. It is called with the lock held.
func (s *Server) adopt(name string, o upgrader.Order) *job {
	for _, j := range s.jobs {
		if j.order.ID == o.ID {
			return j
		}
	}
	s.last++
	j := &job{id: s.last, target: name, order: o}
	s.jobs[j.id] = j
	j.props = s.jobProps(j)
	s.emit(basePath, managerFace+".JobNew", j.id, jobPath(j.id), name)
	return j
}

// order places one, if polkit lets the caller.
func (l *link) order(c caller, name, verb string, o upgrader.Order) (*job, *dbus.Error) {
	details := map[string]string{"target": name}
	if o.Version != "" {
		v, err := fetcher.ParseVersion(o.Version)
		if err != nil {
			return nil, refusal(errorInvalidArgs, "%v", err)
		}
		o.Version, details["version"] = string(v), string(v)
	}
	if o.AllowDowngrade && o.Version == "" {
		return nil, refusal(errorInvalidArgs, "to which version? A downgrade has to name it")
	}
	if least, most := int64(upgrader.BesideMin/time.Second), int64(upgrader.BesideMax/time.Second); o.BesideSec != 0 && (o.BesideSec < least || o.BesideSec > most) {
		return nil, refusal(errorInvalidArgs, "two releases serve for %d to %d seconds, not for %d", least, most, o.BesideSec)
	}
	leave, full := l.enter(c)
	if full != nil {
		return nil, full
	}
	defer leave()
	if refused := l.permit(c, verb, details); refused != nil {
		return nil, refused
	}
	l.orders.Lock()
	defer l.orders.Unlock()
	l.mu.Lock()
	before := l.jobOf(name)
	l.mu.Unlock()
	// A rollback may end the trial that another order began.
	if before != nil && o.Verb != upgrader.OrderRollback {
		return nil, refuse(errorTargetBusy, advice.Give(fmt.Errorf("%s has an order to %s already, which is job %d", name, before.order, before.id), "wait for its end, or cancel it"))
	}
	id, err := upgrader.Place(l.o.StateDir, name, o)
	if err != nil {
		return nil, failure(err)
	}
	o.ID = id
	l.mu.Lock()
	j := l.adopt(name, o)
	if t := l.targets[name]; t != nil {
		l.tell(t)
	}
	l.mu.Unlock()
	l.daemon.Look(name)
	return j, nil
}

// advance takes up what a status says of jobs. It is called with the lock held.
func (s *Server) advance(t *target) {
	st := t.status
	if o := st.Order; o != nil && o.ID != st.Answer.ID {
		s.adopt(st.Name, *o)
	}
	for _, j := range s.sorted() {
		switch {
		case j.target != st.Name:
		case st.Answer.ID == j.order.ID:
			s.end(j, st.Answer)
		default:
			now := s.jobProps(j)
			s.changed(jobPath(j.id), jobFace, j.props, now)
			j.props = now
		}
	}
}

// lookAfterJobs ends those whose order is over and nothing was heard of.
func (s *Server) lookAfterJobs() {
	s.mu.Lock()
	jobs := s.sorted()
	s.mu.Unlock()
	for _, j := range jobs {
		a, isAnswered, stands, err := upgrader.Stands(s.o.StateDir, j.target, j.order.ID)
		if err != nil {
			continue // in doubt it goes on
		}
		s.mu.Lock()
		switch {
		case s.jobs[j.id] == nil: // it ended meanwhile
		case isAnswered:
			s.end(j, a)
		case stands:
			j.missed = false
		case !j.missed: // it may be on its way from one file to the other
			j.missed = true
		default:
			s.remove(j, ResultReplaced, upgrader.Answer{})
		}
		s.mu.Unlock()
	}
}

// sorted is called with the lock held.
func (s *Server) sorted() []*job {
	all := make([]*job, 0, len(s.jobs))
	for _, j := range s.jobs {
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b *job) int { return int(a.id) - int(b.id) })
	return all
}

func (s *Server) dropJobs(name string) {
	for _, j := range s.sorted() {
		if j.target == name {
			s.remove(j, ResultDropped, upgrader.Answer{})
		}
	}
}

// end is called with the lock held, like remove.
func (s *Server) end(j *job, a upgrader.Answer) { s.remove(j, resultOf(j.order, a), a) }

func (s *Server) remove(j *job, r Result, a upgrader.Answer) {
	delete(s.jobs, j.id)
	if t := s.targets[j.target]; t != nil && t.props != nil {
		s.tell(t)
	}
	s.emit(basePath, managerFace+".JobRemoved", j.id, jobPath(j.id), j.target, string(r), string(a.Verdict), journal.Clean(a.Reason))
}

// resultOf tells whether an order was carried out.
func resultOf(o upgrader.Order, a upgrader.Answer) Result {
	switch a.Verdict {
	case upgrader.VerdictCancelled:
		return ResultCancelled
	case upgrader.VerdictGood, upgrader.VerdictInstalled, upgrader.VerdictBeside, upgrader.VerdictStaged, "":
		return ResultDone
	case upgrader.VerdictRolledBack:
		if o.Verb == upgrader.OrderRollback && a.Reason == upgrader.WantedUndone {
			return ResultDone
		}
	}
	return ResultFailed
}

func (l *link) jobFace() face {
	return face{jobFace, []method{
		{"Cancel", "", func(m dbus.Message) *dbus.Error {
			path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
			l.mu.Lock()
			j := l.jobAt(path)
			l.mu.Unlock()
			if j == nil {
				return noObject(path)
			}
			c := callerOf(m)
			leave, full := l.enter(c)
			if full != nil {
				return full
			}
			defer leave()
			if refused := l.permit(c, "cancel", map[string]string{"target": j.target, "version": j.order.Version}); refused != nil {
				return refused
			}
			err := l.daemon.TakeBack(j.target, j.order.ID)
			switch {
			case errors.Is(err, upgrader.ErrTooLate):
				return refusal(errorTooLate, "%v", err)
			case errors.Is(err, upgrader.ErrNoOrder):
				return refusal(errorNoJob, "job %d is over", j.id)
			case err != nil:
				return failure(err)
			}
			return nil
		}},
	}, nil, jobProperties()}
}

// jobAt is called with the lock held.
func (s *Server) jobAt(path dbus.ObjectPath) *job {
	for id, j := range s.jobs {
		if jobPath(id) == path {
			return j
		}
	}
	return nil
}
