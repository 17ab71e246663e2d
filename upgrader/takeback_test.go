package upgrader

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/upgraderd/upgraderd/fetcher"
)

// silentSource answers, and then delivers nothing or, if deaf, does not even answer,
// until nobody waits for it.
type silentSource struct {
	source
	deaf func() bool
}

func (s silentSource) Check(ctx context.Context) (fetcher.Listing, error) {
	if s.deaf() {
		<-ctx.Done()
		return fetcher.Listing{}, ctx.Err()
	}
	return s.source.Check(ctx)
}

func (s silentSource) Fetch(ctx context.Context, _ fetcher.Candidate, _ string, _ func(done, total int64)) (*fetcher.Verified, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTakeBack(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *world){
		"what is fetched": func(t *testing.T, w *world) {
			old := w.running("1.0")
			w.target.Source.PollInterval = time.Hour
			w.around = func(s source) source { return silentSource{s, func() bool { return false }} }
			w.start()
			w.looked()
			w.publish("2.0", "")
			id := w.order(Order{Verb: OrderFetch})
			w.eventually("fetching", func(st TargetStatus) bool {
				return st.State == Fetching && st.Order != nil && st.Order.ID == id && st.Begun
			})
			if err := w.daemon.TakeBack("app", id); err != nil {
				t.Fatal(err)
			}
			if a := w.answered(id, VerdictCancelled); a.Reason != WantedBack {
				t.Errorf("answer: %+v", a)
			}
			w.says("the order to fetch now was taken back")
			time.Sleep(24 * time.Hour) // it does not come by itself
			st := w.status()
			if st.Current != old || st.State != Idle || st.Trouble != "" || st.Last.Verdict != VerdictCancelled || st.Order != nil {
				t.Errorf("a day later: %+v", st)
			}
			w.kill()
			w.around = nil
			w.start()
			w.answered(w.order(Order{Verb: OrderUpgrade, Version: "2.0"}), VerdictGood)
		},
		"what waits for the source": func(t *testing.T, w *world) {
			w.running("1.0")
			w.target.Source.PollInterval = time.Hour
			deaf := false
			w.around = func(s source) source { return silentSource{s, func() bool { return deaf }} }
			w.start()
			w.looked()
			deaf = true
			id := w.order(Order{Verb: OrderUpgrade, Version: "2.0"})
			w.eventually("the order waits", func(st TargetStatus) bool { return st.Order != nil && st.Order.ID == id && !st.Begun })
			time.Sleep(time.Minute)
			began := time.Now()
			if err := w.daemon.TakeBack("app", id); err != nil {
				t.Fatal(err)
			}
			w.answered(id, VerdictCancelled)
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %v", took)
			}
			if st := w.status(); st.Last != nil && st.Last.Verdict == VerdictCancelled {
				t.Errorf("an attempt that was none: %+v", st.Last)
			}
		},
		"what is on trial": func(t *testing.T, w *world) {
			w.running("1.0")
			w.start()
			name := w.publish("2.0", "")
			id := w.order(Order{Verb: OrderUpgrade, Version: "2.0"})
			w.eventually("confirming", func(st TargetStatus) bool { return st.State == Confirming })
			if err := w.daemon.TakeBack("app", id); !errors.Is(err, ErrTooLate) || !strings.Contains(err.Error(), "upgraderd rollback app") {
				t.Errorf("got %v", err)
			}
			w.answered(id, VerdictGood)
			w.settles(name, VerdictGood)
			if err := w.daemon.TakeBack("app", id); !errors.Is(err, ErrNoOrder) {
				t.Errorf("when it is over: got %v", err)
			}
			if err := w.daemon.TakeBack("nobody", id); err == nil {
				t.Error("got no error for a target that is not followed")
			}
		},
	} {
		t.Run(name, func(t *testing.T) { in(t, f) })
	}
}
