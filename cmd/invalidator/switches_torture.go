//go:build torture

package main

import (
	"fmt"

	"walkey/internal/cache"
	"walkey/internal/invalidate"
	"walkey/internal/program"
)

// applySwitches switches off what WALKEY_SWITCHES names, so that the torture run can show what is served then; or has Postgres stream
// whatever it can.
func applySwitches(keeping *cache.Options, o *invalidate.Options, environ []string) error {
	for _, name := range program.Switches(environ) {
		switch name {
		case "no-gate":
			o.Switches.NoGate = true
		case "no-resync":
			o.Switches.NoResync = true
		case "no-replay":
			keeping.Switches.NoReplay = true
		case "stream-all":
			o.StreamingWorkMem = "64kB" // the least that Postgres takes
		default:
			return fmt.Errorf("WALKEY_SWITCHES: there is no switch %q here", name)
		}
	}
	return nil
}
