package activation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// OnReload calls reload each time the service is asked, by one of the signals,
// to read its configuration again, until ctx ends. Without signals it is SIGHUP,
// which is the default of ReloadSignal= in systemd.service(5). It returns at once;
// register before [Ready] or [Serve], since a signal that nobody waits for ends
// the process. After the end of ctx the signals do nothing: one that comes while
// the service drains does not cut it short.
//
// The manager follows it as Type=notify-reload has it:
//
//  1. RELOADING=1 with MONOTONIC_USEC.
//  2. reload is called. It should look at all of the new configuration before it
//     uses any of it, so that on an error the old one stays in force.
//  3. READY=1, however that went. After an error STATUS= has its text, and ERRNO=
//     the number of the [syscall.Errno] in it, else that of EINVAL; ERRNO=0 after a
//     success takes that back. So who asked can tell: "upgraderd" undoes a
//     configuration that was refused like this.
//
// reload is never called twice at once. Signals that come meanwhile make one more
// call when it is over. It runs in a goroutine of its own, and must do its
// own locking against requests that use the configuration. Its context is ctx. One
// that takes long calls [ExtendTimeout].
//
// Without a manager reload is called all the same, and nobody hears of its
// error: log it there.
func OnReload(ctx context.Context, reload func(context.Context) error, signals ...os.Signal) {
	if len(signals) == 0 {
		signals = []os.Signal{syscall.SIGHUP}
	}
	asked := make(chan os.Signal, 1) // one more covers all that came meanwhile
	signal.Notify(asked, signals...)
	go func() {
		refused := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
			}
			if ctx.Err() != nil {
				return
			}
			// A manager that does not listen changes nothing about what is asked for.
			_ = Reloading()
			if refused { // what reload says itself comes after this
				_ = Notify("STATUS=")
			}
			err := reload(ctx)
			refused = err != nil
			_ = Notify(reloaded(err)...)
		}
	}()
}

// reloaded is what the manager is told at the end of a reload.
func reloaded(err error) []string {
	if err == nil {
		return []string{"READY=1", "ERRNO=0"}
	}
	number := syscall.EINVAL
	if !errors.As(err, &number) || number == 0 {
		number = syscall.EINVAL
	}
	return []string{"READY=1", "STATUS=" + strings.Map(oneLine, "Reload refused: "+err.Error()), fmt.Sprintf("ERRNO=%d", int(number))}
}
