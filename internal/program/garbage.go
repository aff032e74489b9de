package program

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"
)

const (
	garbageSlack = 24 << 20 // bytes of garbage before it is collected, where more than that lives
	minPercent   = 10
	maxPercent   = 100 // Go's own
	lookAtHeap   = time.Second
)

// CollectEarly has garbage collected when a fixed amount has come, instead of when memory has doubled, until ctx ends. It suits a process
// that keeps much in large objects without pointers, which cost the collector next to nothing: its memory is then what it keeps and not twice that.
// An environment with GOGC is left alone: somebody has decided.
func CollectEarly(ctx context.Context, environ []string) {
	if slices.ContainsFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, "GOGC=") }) {
		<-ctx.Done()
		return
	}
	former := debug.SetGCPercent(maxPercent)
	defer debug.SetGCPercent(former)
	present := maxPercent
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(lookAtHeap)
	defer ticker.Stop()
	for {
		metrics.Read(live)
		if wanted := garbagePercent(live[0].Value.Uint64()); wanted*10 < present*9 || wanted*9 > present*10 {
			debug.SetGCPercent(wanted)
			present = wanted
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// garbagePercent is how much garbage may come beside what lives, in percent of that.
func garbagePercent(live uint64) int {
	return int(min(max(garbageSlack*100/max(live, 1), minPercent), maxPercent))
}
