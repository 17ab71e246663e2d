package upgrader

import (
	"time"

	"github.com/upgraderd/upgraderd/upgrader/systemd"
)

// Handover is when what happened in the handover of an attempt, as its supervisor
// told. Times are since the attempt began, by its phases, and no clock's; they are
// as late as it takes the daemon to hear of the handover's end: some milliseconds.
type Handover struct {
	// Generation is that of the new worker.
	Generation int `json:"generation"`
	// StartedUs is when the new worker was started, and ReadyUs when it was ready;
	// the old one was told to drain then.
	StartedUs int64 `json:"started_us"`
	ReadyUs   int64 `json:"ready_us"`
	// DrainedUs is when the old one had ended, 0 if it had not when the attempt was
	// over. Killed tells that its time was.
	DrainedUs int64 `json:"drained_us,omitempty"`
	Killed    bool  `json:"killed,omitempty"`
	// Connections were open when the old one was told to drain, Cut when it was
	// killed. They are nil where nobody could count.
	Connections *int `json:"connections,omitempty"`
	Cut         *int `json:"cut,omitempty"`
}

// elapsed is how long the attempt has lasted.
func (m *machine) elapsed() time.Duration {
	if m.record.Attempt == nil {
		return 0
	}
	d := time.Since(m.entered)
	for _, p := range m.record.Attempt.Phases {
		d += p.Took()
	}
	return d
}

// noteReady notes a handover that went well just now.
func (m *machine) noteReady(f systemd.Facts, after time.Duration) {
	st, ok := serving(f)
	a := m.record.Attempt
	if !ok || st.Handover == nil || a == nil {
		return
	}
	a.Handover = &Handover{
		Generation: st.Generation,
		StartedUs:  max(0, after-st.Handover.Ready).Microseconds(),
		ReadyUs:    after.Microseconds(),
	}
	m.noteDrained(f)
}

// noteDrained notes what became of the old worker, once that is known, and reports
// whether it is.
func (m *machine) noteDrained(f systemd.Facts) bool {
	a := m.record.Attempt
	if a == nil || a.Handover == nil || a.Handover.DrainedUs > 0 {
		return false
	}
	st, ok := serving(f)
	if !ok || st.Handover == nil || st.Release != m.record.To || st.Generation != a.Handover.Generation {
		return false // somebody else had another one since
	}
	h := a.Handover
	if n := st.Handover.Connections; n >= 0 {
		h.Connections = &n
	}
	if st.Handover.Drained > 0 {
		h.DrainedUs = h.ReadyUs + st.Handover.Drained.Microseconds()
		h.Killed = st.Handover.Killed
		if n := st.Handover.Cut; n >= 0 {
			h.Cut = &n
		}
	}
	return h.DrainedUs > 0
}

// noteAnswer notes the first answer of the release to a probe.
func (m *machine) noteAnswer() {
	if a := m.record.Attempt; a != nil && a.AnsweredUs == 0 {
		a.AnsweredUs = max(1, m.elapsed().Microseconds())
	}
}
