// Package footprint keeps the memory of a process close to what it needs. Once start-up is over it gives back the pages of the program's own file
// that only starting needed; and when a burst of work is over it gives back what that has left, without waiting for the next one to come.
//
// It changes when memory is returned, never what a program may use: GOGC and GOMEMLIMIT count as they always do, and with GOGC in its environment
// a process collects garbage as that says and in no other way.
package footprint

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"walkey/internal/pace"
)

// lookEvery is how often the heap is looked at: four figures, some microseconds.
const lookEvery = time.Second

// Options say what Keep may do.
type Options struct {
	Environ []string // "NAME=value", as os.Environ gives it
	// Early has garbage collected when a fixed amount has come, instead of when memory has doubled. It suits a process that keeps much in
	// large objects without pointers, which cost the collector next to nothing: its memory is then what it keeps and not twice that.
	Early bool
	// Started says whether what only starting needs has been done. It is asked once a second until it says so.
	Started func() bool
	Logger  *zap.Logger
}

// Keep keeps the process small until ctx ends.
func Keep(ctx context.Context, o Options) {
	k := keeper{percent: maxPercent, decided: slices.ContainsFunc(o.Environ, func(pair string) bool { return strings.HasPrefix(pair, "GOGC=") })}
	early := o.Early && !k.decided
	if early {
		former := debug.SetGCPercent(maxPercent)
		defer debug.SetGCPercent(former)
	}
	ticker := pace.Every(lookEvery)
	defer ticker.Stop()
	defer context.AfterFunc(ctx, ticker.Stop)()
	for {
		now := readHeap()
		if early && k.paced(now) {
			debug.SetGCPercent(k.percent)
		}
		collect, release := k.look(now, o.Started)
		if collect {
			debug.FreeOSMemory()
		}
		if release {
			pages, err := releaseProgram()
			o.Logger.Debug("gave back the pages of the program's file", zap.Uint64("kib", pages), zap.Error(err))
		}
		if !ticker.Wait() {
			return
		}
	}
}

// heap is what the runtime tells about the heap, in bytes.
type heap struct {
	live      uint64 // what the last collection found in use
	objects   uint64 // that, and what has come since
	free      uint64 // what objects have left, and the process has not given back
	allocated uint64 // since the process began
}

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(s)
	return heap{live: s[0].Value.Uint64(), objects: s[1].Value.Uint64(), free: s[2].Value.Uint64(), allocated: s[3].Value.Uint64()}
}
