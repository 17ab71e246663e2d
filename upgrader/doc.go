// Package upgrader moves services from one release to the next. Its promise:
// at every moment, whatever fails or is killed, the link current names a
// complete and verified release; an unproven one is run by an unplanned start
// only where the swap itself is a restart; and what turned bad is undone and
// not tried again.
//
// Each target is a machine of its own, owned by one goroutine. A machine is a
// table, (state, event) → next state, and one step per state. The step to be
// taken is on disk before it is taken, so that a machine can be killed
// anywhere: the next one reads the record, compares it with the links and
// with what systemd says, and finishes or reverts.
//
//	idle ─▶ fetching ─▶ staging ─▶ checking ─▶ swapping ─▶ confirming ─▶ idle
//	  ▲                                           │            │
//	  │                                         held           ▼
//	  └─────────────────────────────────────────────────  rolling-back
//
// The whole table:
//
//	recovering    NothingPending       ─▶ idle
//	              OperatorAwaited      ─▶ held
//	              SwapInterrupted      ─▶ swapping
//	              ReleaseServed        ─▶ confirming
//	              BothServed           ─▶ beside
//	              KeepInterrupted      ─▶ keeping
//	              RollbackInterrupted  ─▶ rolling-back
//	              UpgradeAbandoned     ─▶ rolling-back
//	              ReleaseBroke         ─▶ rolling-back
//	              StepFailed           ─▶ recovering
//	idle          NothingNew           ─▶ idle
//	              LookFailed           ─▶ idle
//	              ReleaseFound         ─▶ fetching
//	              RollbackOrdered      ─▶ swapping
//	              UpgradeOrdered       ─▶ checking
//	fetching      ReleaseVerified      ─▶ staging
//	              ReleaseStaged        ─▶ checking
//	              ReleaseRefused       ─▶ idle
//	              FetchFailed          ─▶ idle
//	staging       ReleaseStaged        ─▶ checking
//	              ReleaseRefused       ─▶ idle
//	              StageFailed          ─▶ idle
//	checking      CheckPassed          ─▶ swapping
//	              UpgradeAwaited       ─▶ idle
//	              UpgradeForbidden     ─▶ idle
//	              ReleaseRefused       ─▶ idle
//	              CheckNotRun          ─▶ idle
//	swapping      ReleaseServed        ─▶ confirming
//	              BothServed           ─▶ beside
//	              ReleaseInstalled     ─▶ idle
//	              OperatorAwaited      ─▶ held
//	              OperatorActed        ─▶ idle
//	              ReleaseRefused       ─▶ idle
//	              ReleaseBroke         ─▶ rolling-back
//	              UnitUnusable         ─▶ idle
//	              StepFailed           ─▶ recovering
//	confirming    ReleaseProved        ─▶ idle
//	              ReleaseBroke         ─▶ rolling-back
//	              OperatorActed        ─▶ idle
//	              StepFailed           ─▶ recovering
//	beside        ReleaseChosen        ─▶ keeping
//	              ReleaseServed        ─▶ confirming
//	              ReleaseBroke         ─▶ rolling-back
//	              StepFailed           ─▶ recovering
//	keeping       ReleaseProved        ─▶ idle
//	              ReleaseBroke         ─▶ rolling-back
//	              StepFailed           ─▶ recovering
//	rolling-back  RolledBack           ─▶ idle
//	              RollbackFailed       ─▶ idle
//	              OperatorActed        ─▶ idle
//	              StepFailed           ─▶ recovering
//	held          NothingNew           ─▶ held
//	              LookFailed           ─▶ held
//	              ReleaseFound         ─▶ fetching
//	              SwapAllowed          ─▶ swapping
//	              OperatorActed        ─▶ idle
//
// # Two at once
//
// An order can have the release serve beside the one before it, until another order
// says which of them stays, or a time is over; see beside.go.
//
// # When nobody is there to decide
//
// PID 1 holds a dead man's switch, the guard: a timer that runs from before a
// swap until after its verdict. Should no daemon hold the target's lock, and
// none come back in time, [Guard] undoes what is pending, by the steps above.
// After a reboot [RevertUnproven] moves the links back before any unit starts.
//
// # Itself
//
// The target of the name upgraderd is the daemon itself. Its release gets one
// start on trial, by [Launch], and current moves only after its verdict, so that
// whatever ends the trial, the next start is of what proved itself. See own.go.
//
// # What decides
//
// Facts, never a job's result: who serves is read from the supervisor's
// status sentence (package statusline), whether it crashed from ActiveState,
// SubState, Result and NRestarts, whether somebody else acted from
// InvocationID and MainPID. Where somebody did, what they did stands, and the
// release counts as neither good nor bad. It comes up again later, three
// times at most.
//
// Other units that systemd stopped with the service, in a swap by restart, are
// active again after it, if root lets the daemon start them. See dependents.go.
//
// A release is newer by the version order of package fetcher only, and never
// older than the newest that was ever accepted, which the record remembers: a
// source cannot lead a host back. The accepted version offered with another
// digest is not taken, once said and then ignored: a version names one set of
// bytes.
//
// An operator can: an [Order] lies in the target's directory until its answer is
// in the record. It is looked at between two upgrades, and a rollback also while
// a release is on trial. One to fetch or to import ends with a release staged,
// which an order to upgrade applies later, without the source; see fetched.go.
//
// # What it does not do
//
// It never runs systemctl, never reloads systemd's configuration, and holds no
// service's sockets. Migrating data, and moving it back, is the release's own
// work.
package upgrader
