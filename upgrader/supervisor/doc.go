// Package supervisor keeps one promise: from the moment a unit is started
// until it is stopped, its main PID and its sockets stay the same, and at
// any moment either a worker that said it was ready accepts connections, or
// the kernel's backlog holds them.
//
// The supervisor is the unit's main process and parent of its workers. To
// systemd it is one steady service; to a worker it is systemd: LISTEN_FDS,
// LISTEN_FDNAMES, NOTIFY_SOCKET and WATCHDOG_USEC mean what sd_listen_fds(3),
// sd_notify(3) and sd_watchdog_enabled(3) say, so that a program in any
// language that supports socket activation runs unmodified. A program that takes
// its sockets in another way runs unmodified, too, if that is one of the dialects of
// [Pass].
//
//	        systemd
//	sockets │    ▲ READY, STATUS, fd store: sockets, pidfds, state
//	        ▼    │
//	    ┌──────────────┐  control   ┌────────────────────┐
//	    │  supervisor  │◀───────────│ upgraderd handover │ ExecReload=
//	    └──────────────┘            └────────────────────┘
//	sockets │    ▲ READY=1, one private notify socket per worker
//	        ▼    │
//	old worker  new worker     both hold the same sockets
//
// # A handover, in order
//
//  1. The release is picked: next where that link exists, else current.
//  2. What is to be started goes into the memory that a restarted supervisor
//     reads, then a worker is started, then its pidfd goes into systemd's fd
//     store. So there is never a worker that a restarted supervisor would not
//     know: without the pidfd it knows it by the notify socket it reports to.
//  3. The worker becomes ready (see [Ready]) before the start deadline, or it
//     is killed with its process group and nothing else has happened: the
//     old worker was never told.
//  4. The new worker is recorded as the one that serves. Only then the old
//     one gets its stop signal. It drains, up to a limit.
//
// # When the supervisor dies
//
// The unit has KillMode=process, so workers outlive a killed supervisor.
// systemd starts it again with everything it had put into the fd store, and
// it adopts the workers: the one that served still serves, those that
// drained still drain against the same deadline, and one that was on trial has
// a few seconds to finish what it may have taken. A stop ends every worker, and
// every process left in the unit's control group.
//
// # Without systemd
//
// Under another init, or as process 1 of a container, the supervisor opens the
// sockets of --listen itself, is asked for a handover by SIGHUP, and buries what
// its workers leave behind. There is no fd store, so that nobody adopts the workers
// of a supervisor that was killed; as process 1 it takes them with it.
//
// # When upgraderd itself is upgraded
//
// A supervisor whose program was replaced on disk goes on as the new one, by
// execve(2) in place: main PID, sockets and workers stay. The new program has to
// show that it starts, and one that cannot is left alone.
//
// From execve(2) until the new program listens for signals, about a millisecond, a
// signal is not waited with: SIGHUP, SIGUSR1 and SIGUSR2 are lost, and SIGTERM
// ends the process at once. A stop in just that moment leaves the worker running,
// as after a kill, which systemd says in the journal; the next start of the unit
// adopts it or ends it. SIGTERM cannot be made to wait: blocked across execve(2),
// it is pending in the new program, but Go's runtime takes all signals that would
// end a process out of the mask it inherits (blockableSig in its signal_unix.go)
// before it installs any handler, let alone ours. Ignored, it would be dropped at
// that same place, and systemd would wait for the whole of TimeoutStopSec= for
// nothing. What is left is to be short: no renewal begins while a signal is
// unheard, and the new program listens before it does anything else ([Hear]).
//
// One goroutine, the one in [Run], owns all state. Others watch one thing
// each (a process, a socket, a timer) and post what they see to it.
package supervisor
