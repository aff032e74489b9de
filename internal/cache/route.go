package cache

import (
	"context"
	"crypto/sha1" // it is how Valkey names scripts
	"encoding/hex"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const (
	maxRedirects  = 8
	redirectPause = 20 * time.Millisecond // before a node is believed less than before
)

// send runs one command where its key is served.
func (t *topology) send(ctx context.Context, key string, words ...string) rueidis.RedisResult {
	return t.sendAll(ctx, key, words)[0]
}

// sendAll runs commands for one key where it is served, in one round trip, and goes after a key whose slot moves.
func (t *topology) sendAll(ctx context.Context, key string, commands ...[]string) []rueidis.RedisResult {
	asking := false
	client := t.serving(key).node.writer
	for hops := 0; ; hops++ {
		if client == nil {
			replies := make([]rueidis.RedisResult, len(commands))
			for i := range replies {
				replies[i] = rueidis.NewErrorResult(errNoPrimary)
			}
			return replies
		}
		replies := sendTo(ctx, client, asking, commands)
		if t.kind == oneServer || hops == maxRedirects {
			return replies
		}
		if err := replies[0].NonRedisError(); err != nil {
			t.failed(ctx, err)
			return replies
		}
		next, ask, err := t.follow(ctx, key, client, replies)
		if err != nil || next == nil {
			return replies
		}
		client, asking = next, ask
	}
}

func sendTo(ctx context.Context, client rueidis.Client, asking bool, commands [][]string) []rueidis.RedisResult {
	built := make(rueidis.Commands, 0, 2*len(commands))
	for _, words := range commands {
		if asking { // holds for the next command only
			built = append(built, client.B().Asking().Build())
		}
		built = append(built, client.B().Arbitrary(words...).Build())
	}
	if len(built) == 1 {
		return []rueidis.RedisResult{client.Do(ctx, built[0])}
	}
	replies := client.DoMulti(ctx, built...)
	if asking {
		for i := range commands {
			replies[i] = replies[2*i+1]
		}
		replies = replies[:len(commands)]
	}
	return replies
}

// follow says where the replies send the commands of a key: nil when they are answers.
func (t *topology) follow(ctx context.Context, key string, from rueidis.Client, replies []rueidis.RedisResult) (next rueidis.Client, asking bool, err error) {
	for _, reply := range replies {
		refusal, ok := rueidis.IsRedisErr(reply.Error())
		if !ok {
			continue
		}
		if address, ok := refusal.IsAsk(); ok {
			next, err = t.clientAt(ctx, t.complete(key, address))
			return next, true, err
		}
		if strings.HasPrefix(refusal.Error(), "READONLY ") { // it was demoted
			if err := t.refresh(ctx); err != nil {
				return nil, false, err
			}
			if next = t.serving(key).node.writer; next == from {
				next = nil // nobody says so yet
			}
			return next, false, nil
		}
		if _, ok := refusal.IsMoved(); ok {
			if err := t.refresh(ctx); err != nil {
				return nil, false, err
			}
			if next = t.serving(key).node.writer; next == from {
				select {
				case <-time.After(redirectPause):
				case <-ctx.Done():
					return nil, false, ctx.Err()
				}
			}
			return next, false, nil
		}
	}
	return nil, false, nil
}

// complete gives an address its host, where the node leaves it to the client: that of the node that said it.
func (t *topology) complete(key, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "" {
		return address
	}
	host, _, _ = net.SplitHostPort(t.serving(key).node.address)
	return net.JoinHostPort(host, port)
}

// elsewhere says that a node has refused because it does not, or not now, serve the key.
func elsewhere(err error) bool {
	refusal, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	text := refusal.Error()
	for _, kind := range []string{"MOVED ", "ASK ", "CLUSTERDOWN ", "TRYAGAIN ", "READONLY "} {
		if strings.HasPrefix(text, kind) {
			return true
		}
	}
	return false
}

// A script runs in Valkey. It touches one key, but for one that is called for several where there are no slots.
type script struct {
	text, sha string
	// looks is true of one that is called as one that only reads, for which its user needs no right to write.
	looks bool
}

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

// newLook is newScript for a script that changes nothing.
func newLook(text string) *script {
	s := newScript(text)
	s.looks = true
	return s
}

// run runs the script where its key is served.
func (s *script) run(ctx context.Context, t *topology, key string, args ...string) rueidis.RedisResult {
	return s.by(func(words []string) rueidis.RedisResult { return t.send(ctx, key, words...) }, key, args)
}

// at runs the script on one node, served or not.
func (s *script) at(ctx context.Context, n *node, key string, args ...string) rueidis.RedisResult {
	return s.by(func(words []string) rueidis.RedisResult {
		return n.writer.Do(ctx, n.writer.B().Arbitrary(words...).Build())
	}, key, args)
}

// by calls the script by its name, and by its text where the name is not known.
func (s *script) by(send func([]string) rueidis.RedisResult, key string, args []string) rueidis.RedisResult {
	reply := send(s.call(false, []string{key}, args))
	if refusal, ok := rueidis.IsRedisErr(reply.Error()); ok && refusal.IsNoScript() {
		reply = send(s.call(true, []string{key}, args))
	}
	return reply
}

// call is the command that calls the script by its name, or by its text.
func (s *script) call(byText bool, keys, args []string) []string {
	command, name := "EVALSHA", s.sha
	if byText {
		command, name = "EVAL", s.text
	}
	if s.looks {
		command += "_RO"
	}
	words := append(make([]string, 0, 3+len(keys)+len(args)), command, name, strconv.Itoa(len(keys)))
	return append(append(words, keys...), args...)
}
