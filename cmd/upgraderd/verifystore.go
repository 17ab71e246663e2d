package main

import (
	"context"
	"errors"

	"github.com/upgraderd/upgraderd/upgrader"
	"github.com/upgraderd/upgraderd/upgrader/config"
	"github.com/upgraderd/upgraderd/upgrader/store"
)

// verifyStores tells which releases on disk are not what was installed.
func verifyStores(ctx context.Context, at scope, targets []*upgrader.Target) config.Diagnostics {
	var ds config.Diagnostics
	for _, t := range targets {
		for _, damage := range upgrader.Intact(ctx, at.state(), t.Name) {
			d := config.Diagnostic{Target: t.Name, File: damage.Path, Message: damage.Err.Error()}
			var e *store.Error
			if errors.As(damage.Err, &e) {
				d.Message, d.Code, d.Hint = e.Err.Error(), config.Code(e.Code), e.Hint
			}
			ds = append(ds, d)
		}
	}
	return ds
}
