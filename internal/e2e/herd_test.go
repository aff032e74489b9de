package e2e

import (
	"fmt"
	"sync"
	"testing"
)

// Readers of one key that has just been deleted cause at most one load in each process.
func TestHerdLoadsOnceForEachProcess(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	apis := []*program{s.startAPI(), s.startAPI()}
	s.startInvalidator()
	s.seed("v0")
	const readers, rounds = 200, 10
	for _, api := range apis {
		api.waitHit(detailPath(1))
	}
	for round := range rounds {
		title := fmt.Sprintf("v%d", round+1)
		s.psql("update materials set title = '" + title + "' where id = 1")
		settle(t, s)
		var wait sync.WaitGroup
		var mu sync.Mutex
		loads := map[*program]int{} // guarded by mu
		for i := range readers {
			api := apis[i%len(apis)]
			wait.Go(func() {
				a, err := api.try(detailPath(1))
				mu.Lock()
				defer mu.Unlock()
				if err != nil || !hasTitle(title)(a) {
					t.Errorf("round %d: %v %s", round, err, a)
				}
				if a.Cache == "walkey; fwd=miss; stored" || a.Cache == "walkey; fwd=miss; detail=fill-refused" {
					loads[api]++
				}
			})
		}
		wait.Wait()
		if loads[apis[0]]+loads[apis[1]] == 0 {
			t.Errorf("round %d: nobody loaded", round)
		}
		for i, api := range apis {
			if loads[api] > 1 {
				t.Errorf("round %d: api %d loaded %d times", round, i, loads[api])
			}
		}
	}
}
