package overseer

import (
	"os"

	"github.com/upgraderd/upgraderd/activation/overseer/fetcher"
)

// tellOrigin has "upgraderd adopt" find where the fetcher looks, for as long as the
// file is open. That nobody can be told is no reason not to serve.
func (p *parent) tellOrigin() *os.File {
	o := fetcher.OriginOf(p.Fetcher)
	o.PreUpgrade, o.NoRestartAfterFetch = p.PreUpgrade != nil, p.NoRestartAfterFetch || p.NoRestart
	f, err := o.Tell()
	if err != nil {
		p.debugf("tell where the fetcher looks: %s", err)
		return nil
	}
	return f
}
