package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Two processes load, change and delete in any order; loads take as long as they like. Whatever has happened, in the end
// both answer what is true.
func TestWhateverHappensTheTruthIsServedInTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	caches := []*Cache{b.trusted(), b.open()}
	b.awaitTrust(caches[1])
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		addresses := []Address{caches[0].At(fmt.Sprint("k", run)), caches[0].Field(fmt.Sprint("h", run), "f")}
		var truth [2]atomic.Int64
		type load struct {
			address int
			release chan struct{}
			answer  <-chan answer
		}
		var going []load
		finish := func(i int) {
			close(going[i].release)
			if got := receive(t, "answer", going[i].answer); got.err != nil {
				rt.Errorf("%+v", got)
			}
			going = append(going[:i], going[i+1:]...)
		}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			address := rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "address")
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0, 1: // somebody asks, and may load for a long time
				if len(going) == 3 {
					finish(0)
				}
				release, begun := make(chan struct{}), make(chan struct{}, 16)
				c := caches[rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "process")]
				answers := fetchLater(t, c, addresses[address], func(ctx context.Context) (Content, error) {
					content := Content{Body: fmt.Append(nil, truth[address].Load())}
					begun <- struct{}{}
					select {
					case <-release:
					case <-ctx.Done():
					}
					return content, nil
				})
				select {
				case <-begun:
					going = append(going, load{address, release, answers})
				case got := <-answers:
					if got.err != nil {
						rt.Errorf("%+v", got)
					}
				case <-quickly():
					// It waits for a load that is going on.
					going = append(going, load{address, release, answers})
				}
			case 2: // a change, visible before its delete
				truth[address].Add(1)
				b.delete(addresses[address])
			case 3:
				if len(going) > 0 {
					finish(0)
				}
			}
		}
		for len(going) > 0 {
			finish(0) // the oldest, which waits for no other
		}
		for i := range addresses {
			want := fmt.Sprint(truth[i].Load())
			for _, c := range caches {
				await10(t, "truth", func() bool {
					return fetch(t.Context(), c, addresses[i], func(context.Context) (Content, error) {
						return Content{Body: fmt.Append(nil, truth[i].Load())}, nil
					}).body == want
				})
			}
		}
	})
}

func quickly() <-chan time.Time { return time.After(20 * time.Millisecond) }
