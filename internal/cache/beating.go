package cache

import (
	"context"
	"fmt"
	"sync"

	"github.com/redis/rueidis"
)

// Beats reads every primary's heartbeat: its number by the primary's address, 0 where there is none. A number says nothing but
// whether it has risen since it was read before.
func (e *Eraser) Beats(ctx context.Context) (map[string]uint64, error) {
	nodes := e.topology.present.Load().nodes
	beats := make(map[string]uint64, len(nodes))
	var mu sync.Mutex
	err := e.everywhere(nodes, func(n *node) error {
		value, err := n.writer.Do(ctx, n.writer.B().Get().Key(n.names.Load().heartbeat).Build()).ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
		number, _, _ := parseBeat(value)
		mu.Lock()
		defer mu.Unlock()
		beats[n.address] = number
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the heartbeat: %w", err)
	}
	return beats, nil
}
