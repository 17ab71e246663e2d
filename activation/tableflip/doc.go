// Package tableflip is for programs that were written for
// github.com/cloudflare/tableflip: they change the import, and keep their main PID.
//
// The promise is tableflip's: no old code keeps running after a successful upgrade,
// but for what it has begun; a new process that crashes while it starts does no
// harm; and there is one upgrade at a time.
//
// What was a chain of processes, each the parent of the next, is a supervisor and its
// workers. Under "upgraderd supervise" this process is a worker. Without it, [New]
// makes the supervisor of the process that calls it and does not return there; it
// returns in the workers, which run main from the start. So what stands before New runs
// in both.
//
// An upgrade is [Upgrader.Upgrade], or SIGHUP or SIGUSR2 to the main process, or
// "systemctl reload", which all have the supervisor start what upgraderd or the
// operator put in place. SIGTERM to the main process ends the program: each worker
// gets SIGTERM, which [New] hears and [Upgrader.Exit] tells.
//
// # Files
//
// What is in [Fds] lies with the supervisor from [Upgrader.Ready] on, in the fd store
// of systemd too where there is one: so it also survives a crash of the
// program. Sockets of .socket units are found by their address. State that is no
// descriptor is left by activation.StoreState.
package tableflip
