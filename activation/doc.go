// Package activation lets a service be replaced while it serves: sockets come
// in, readiness goes out, and nothing that was accepted is dropped.
//
// The promise: a file descriptor that a service manager passed is handed out
// at most once, with close-on-exec set, and belongs to whoever took it; a
// request that reached this process is answered before the process is done.
//
// The manager is systemd, or anything that speaks its protocol: "upgraderd
// supervise" does towards its workers. Without a manager everything still
// works: [Listen] opens the socket itself and the notifications do nothing.
//
// # Sockets in
//
// [Listen] and [ListenPacket] give the one socket with a name, [Listeners] and
// [PacketConns] all of a kind, [Files] whatever is left. An inherited
// descriptor is marked in the kernel's descriptor table when it is taken (it
// arrives without close-on-exec and leaves with it), so every function may be
// called any number of times, from any goroutine and next to other libraries:
// each call sees what nobody took yet. See sd_listen_fds(3).
//
// # Readiness out
//
// [Ready], [Reloading], [Stopping], [Status], [ExtendTimeout], [Watchdog] and
// [Barrier] send one datagram each to $NOTIFY_SOCKET. See sd_notify(3). [OnReload]
// has the configuration read again when systemd or a supervisor asks for that.
//
// # Kept across restarts
//
// [StoreFile] and [StoreState] leave descriptors and bytes with the manager,
// [TakeStored] and [TakeState] find them again after a restart. See
// sd_pid_notify_with_fds(3) and FileDescriptorStoreMax= in systemd.service(5).
//
// # Draining
//
// [Serve] runs HTTP servers and ends them without failing a request;
// [ListenAndServe] is that in one line.
//
// # Programs that are upgraded some other way
//
// Packages overseer and tableflip below this one have the shapes of the libraries of
// these names; see docs/porting.
//
// # What it does not do
//
// It starts no process and knows nothing of releases. It does not open raw,
// netlink or vsock sockets; [Files] hands those over as they came.
package activation
