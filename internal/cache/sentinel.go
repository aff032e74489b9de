package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// askSentinels gives the address of the primary. Where sentinels differ, the one holds that speaks of the latest failover,
// among the first who are more than half, or all who answer.
func (t *topology) askSentinels(ctx context.Context) (address string, err error) {
	type answer struct {
		address string
		epoch   uint64
		err     error
	}
	seeds := t.options.addresses()
	answers := make(chan answer, len(seeds))
	for _, seed := range seeds {
		client, err := t.scout(seed)
		if err != nil {
			return "", err
		}
		go func() {
			once, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			var a answer
			a.address, a.epoch, a.err = askSentinel(once, client, seed, t.options)
			answers <- a
		}()
	}
	var errs []error
	best := uint64(0)
	for answered := 0; len(errs)+answered < len(seeds) && answered <= len(seeds)/2; {
		a := <-answers
		if a.err != nil {
			errs = append(errs, a.err)
			continue
		}
		if answered++; address == "" || a.epoch > best {
			address, best = a.address, a.epoch
		}
	}
	if address == "" {
		return "", errors.Join(errs...)
	}
	return address, nil
}

// askSentinel asks one sentinel. The name and password of Valkey are shown to one that wants to know who asks.
func askSentinel(ctx context.Context, client rueidis.Client, seed string, o Options) (address string, epoch uint64, err error) {
	ask := client.B().Arbitrary("SENTINEL", "MASTER", o.SentinelMaster).Build
	reply := client.Do(ctx, ask())
	if refusal, ok := rueidis.IsRedisErr(reply.Error()); ok && strings.HasPrefix(refusal.Error(), "NOAUTH") && o.Password != "" {
		auth := []string{"AUTH", o.Password}
		if o.Username != "" {
			auth = []string{"AUTH", o.Username, o.Password}
		}
		replies := client.DoMulti(ctx, client.B().Arbitrary(auth...).Build(), ask())
		if err := replies[0].Error(); err != nil {
			return "", 0, fmt.Errorf("log in at the sentinel %s: %w", seed, err)
		}
		reply = replies[1]
	}
	said, err := reply.AsStrMap()
	if err != nil {
		return "", 0, fmt.Errorf("ask the sentinel %s for %q: %w", seed, o.SentinelMaster, err)
	}
	if said["ip"] == "" || said["port"] == "" {
		return "", 0, fmt.Errorf("ask the sentinel %s for %q: the answer names no address", seed, o.SentinelMaster)
	}
	epoch, err = strconv.ParseUint(said["config-epoch"], 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("ask the sentinel %s for %q: %w", seed, o.SentinelMaster, err)
	}
	return net.JoinHostPort(said["ip"], said["port"]), epoch, nil
}
