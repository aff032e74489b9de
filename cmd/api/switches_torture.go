//go:build torture

package main

import (
	"fmt"

	"walkey/internal/api"
	"walkey/internal/cache"
	"walkey/internal/program"
)

// applySwitches switches off what WALKEY_SWITCHES names, so that the torture run can show what is served then.
func applySwitches(o *cache.Options, source *api.StoreOptions, environ []string) error {
	for _, name := range program.Switches(environ) {
		switch name {
		case "no-token-per-load":
			o.Switches.NoTokenPerLoad = true
		case "no-heartbeat":
			o.Switches.NoHeartbeat = true
		case "no-standby-lsn":
			source.NoStandbyLSN = true
		default:
			return fmt.Errorf("WALKEY_SWITCHES: there is no switch %q here", name)
		}
	}
	return nil
}
