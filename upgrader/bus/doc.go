// Package bus is the daemon on the system bus, and the client that the command line
// uses there. It promises that the bus is only a face: whatever is asked over it goes
// through the door that everything else goes through, an order on disk, so that a
// daemon without a bus goes on, and a client that comes back finds what it ordered.
//
// The name is made as the D-Bus API design guidelines have it, of a domain that is the
// project's, upgraderd.github.io, in reverse, and a number that changes when the API
// breaks. Its shape is that of org.freedesktop.sysupdate1:
//
//	/io/github/upgraderd/upgraderd1               io.github.upgraderd.upgraderd1.Manager
//	/io/github/upgraderd/upgraderd1/target/app    io.github.upgraderd.upgraderd1.Target
//	/io/github/upgraderd/upgraderd1/job/17        io.github.upgraderd.upgraderd1.Job
//	/org/freedesktop/LogControl1                  org.freedesktop.LogControl1
//
// Anybody may read, as anybody may run upgraderd status. For each verb there is an
// action of polkit's, of the verb's name behind that of the bus: the arguments are
// checked first, and it is told them. Root needs no polkit, so that a host without one
// can still be worked on; everybody else is refused where polkit does not answer.
//
// The daemon of a user is on that user's bus, under the same name, and obeys nobody but
// that user and root.
//
// A job is an order that waits or is carried out, whoever gave it and on which way. It
// has a number while this daemon runs and the order an ID for ever; [upgrader.Stands]
// and the property Answer tell its end when the job is gone.
//
// There is no file for bus activation: whoever stops the daemon wants no upgrades, and
// a question of somebody else's must not start it again.
//
// What comes from the bus has limits: calls under way, of each user and together; how
// often a user may call, and how often it is logged that they may not; how long polkit
// is waited for; orders, of which a target has one at a time. Root has none of the
// first two.
package bus
