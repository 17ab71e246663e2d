// Package adopt makes the unit of an existing service upgradable, and takes that
// back without a trace. It changes no file that it did not write: what it has to
// say stands in a drop-in of its own, in a .socket unit that was not there, and in
// a new .upgrade file. Nothing of a running service changes before it is moved.
//
//	/etc/systemd/system/
//	  app.socket                          where it listened for itself
//	  app.service.d/50-upgraderd-adopt.conf
//	/etc/upgraderd/app.upgrade
//	/var/lib/upgraderd/app/               the program that is installed, as the
//	                                      release that a first upgrade returns to
//
// The drop-in is the record: its first lines name whatever was made with it, and
// are all that undoing needs. It is written after what it refers to, and removed
// last, so that a crash leaves either a unit that starts or a record of what to
// remove.
//
// What is decided, [Plan], is a function of what systemd and the kernel say of the
// service, see [Look], and of what the operator wants.
package adopt
