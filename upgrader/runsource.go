package upgrader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/upgraderd/upgraderd/fetcher/command"
	sourcefault "github.com/upgraderd/upgraderd/fetcher/fault"
)

// runSource runs the command of a target whose Path= is exec: in its sandbox. It
// names the target only: which command that is, the sandbox reads in root's own
// files, or a user's. upgraderd-source.socket listens at socket: systemd starts an
// instance of upgraderd-source@.service, which is the sandbox, for each connection.
func runSource(socket string) command.Run {
	return func(ctx context.Context, r command.Request) (io.ReadCloser, error) {
		out, err := command.Dial(socket)(ctx, r)
		if err != nil {
			return nil, sourcefault.Passing(sourcefault.SourceIO, fmt.Errorf("reach the sandbox of the command: %w", err), "systemctl start upgraderd-source.socket")
		}
		return out, nil
	}
}

// ServeSource answers one question of the daemon's over conn, inside the sandbox.
// It is meant for `upgraderd run-source`. find gives the target of a name.
func ServeSource(ctx context.Context, conn net.Conn, find func(name string) (*Target, error), stderr io.Writer) error {
	return command.Serve(ctx, conn, func(ctx context.Context, r command.Request) (io.ReadCloser, error) {
		t, err := find(r.Target)
		if err != nil {
			return nil, err
		}
		program, ok := strings.CutPrefix(t.Source.Path, "exec:")
		if !ok {
			return nil, errors.New("its Path= is no command")
		}
		return command.Exec(program, stderr)(ctx, r)
	})
}
