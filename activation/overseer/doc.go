// Package overseer is for programs that were written for
// github.com/jpillora/overseer: they change the import, and are upgraded while
// they serve.
//
// The promise: at any moment either a process that accepts connections holds
// the listeners, or the kernel's backlog holds the connections; and a binary
// that does not come as far as accepting never takes the place of one that did.
//
// [Run] finds out which part this process has to play:
//
//	upgraderd supervise   ── worker        the unit's main PID is the supervisor's
//	nobody                ── main process  holds the listeners, fetches, replaces
//	                            └─ worker  runs Config.Program
//
// # As a worker of upgraderd
//
// Program gets the sockets that the unit holds, matched with Config.Addresses by
// where they are bound and then by order; an address that no socket is bound to is
// opened, and left with the supervisor for the next generation. The daemon fetches and
// verifies, so Fetcher, PreUpgrade, MinFetchInterval, NoRestart, NoRestartAfterFetch
// and RestartSignal mean nothing there: see docs/porting/overseer.md for what in a
// .upgrade file means the same.
//
// # On its own
//
// Without upgraderd the first process is the main process. It is the supervisor of
// upgraderd (package upgrader/supervisor), with what overseer documents around
// it: the fetcher is polled, a binary that comes is checked, tried beside the old one,
// and moved to where the old one lies when it accepts. Under a plain unit of
// systemd it takes the sockets of a .socket unit, and the fd store if there is one.
//
// # Where it differs from the original
//
//   - The old worker accepts until the new one does: it is told to end then, and
//     not before the new one is started.
//   - A fetched binary that does not come as far as accepting is dropped and not tried
//     again until another comes. The original overwrote the only binary first.
//   - With NoRestart a fetched binary is put in place for the next start, and the
//     service goes on. The original ended it.
//   - A worker that does not end within TerminateTimeout is killed, with its
//     process group, also after a restart.
//   - What a binary prints before Run does not make it fail the sanity check.
//   - The first fetch does not delay the first start.
//   - SIGTERM to the main process drains the worker. The original passed it on,
//     which by default ends the worker at once. All other signals are passed on as
//     before.
//   - Listener.Close does not wait; Accept does, once a graceful shutdown has begun, until
//     the connections are closed. So http.Serve returns when it did, and
//     http.Server.Shutdown is not in its own way.
//
// # What it does not do
//
// It runs on Linux only. main runs in both processes up to Run, as before: keep
// what must happen once in Program. Cron schedules are not there.
package overseer
