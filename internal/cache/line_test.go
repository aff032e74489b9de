package cache

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"walkey/internal/faultproxy"
)

// openTestLine gives a line at which nobody looks but the test, and its link.
func openTestLine(t *testing.T) (*line, *faultproxy.Proxy) {
	t.Helper()
	b := setup(t)
	p := b.proxy()
	o := b.options
	through(p)(&o)
	client, err := connectLine(eraserOptions(o, o.addresses()[0]), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	l := client.(*line)
	ping(t, l)
	l.look()
	return l, p
}

func ping(t *testing.T, l *line) {
	t.Helper()
	if err := l.Do(t.Context(), l.B().Ping().Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

// A line that is silent while something is asked is closed, after as many looks as it is given patience and not before.
func TestSilentLineIsClosed(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*line) error{
		"Do": func(l *line) error { return l.Do(t.Context(), l.B().Ping().Build()).Error() },
		"DoMulti": func(l *line) error {
			return l.DoMulti(t.Context(), l.B().Ping().Build(), l.B().Ping().Build())[1].Error()
		},
		"DoCache": func(l *line) error {
			return l.DoCache(t.Context(), l.B().Get().Key("k").Cache(), clientTTL).Error()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, p := openTestLine(t)
			p.Silence()
			answered := make(chan error, 1)
			go func() { answered <- ask(l) }()
			await10(t, "call", func() bool { return l.asked.Load() == 1 })
			for range l.patience {
				l.look()
			}
			select {
			case err := <-answered:
				t.Fatalf("the call ended too early: %v", err)
			default:
			}
			l.look()
			if err := receive(t, "end of the call", answered); err == nil || rueidis.IsRedisNil(err) {
				t.Errorf("no error but %v", err)
			}
			p.Heal()
			await10(t, "new connection", func() bool { return ask(l) == nil || rueidis.IsRedisNil(ask(l)) })
		})
	}
}

// A call that was given up is still owed an answer.
func TestSilentLineIsClosedAfterCallsThatWereGivenUp(t *testing.T) {
	t.Parallel()
	l, p := openTestLine(t)
	first := l.present.Load()
	p.Silence()
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() { answered <- l.Do(ctx, l.B().Ping().Build()).Error() }()
	await10(t, "call", func() bool { return l.asked.Load() == 1 })
	cancel()
	if err := receive(t, "end of the call", answered); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for range l.patience + 1 {
		l.look()
	}
	p.Heal()
	await10(t, "answer", func() bool { return l.Do(t.Context(), l.B().Ping().Build()).Error() == nil })
	if l.present.Load() == first {
		t.Error("it is still the same connection")
	}
}

// Whatever comes in shows that the other side lives; and a line on which nothing is asked may be silent.
func TestLivingLineIsKept(t *testing.T) {
	t.Parallel()
	l, p := openTestLine(t)
	first := l.present.Load()
	for range 3 * l.patience {
		l.look()
	}
	ping(t, l)
	p.SilenceReplies()
	answered := make(chan error, 1)
	go func() { answered <- l.Do(t.Context(), l.B().Ping().Build()).Error() }()
	await10(t, "call", func() bool { return l.asked.Load() == 1 })
	for range 3 {
		for range l.patience {
			l.look()
		}
		l.heard.Add(1) // a push, say
	}
	p.Heal()
	if err := receive(t, "answer", answered); err != nil {
		t.Error(err)
	}
	if l.present.Load() != first {
		t.Error("it has connected anew")
	}
}

// Both halves of the package have someone who looks.
func TestSilentLinesAreLookedAt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	o := b.options
	through(p)(&o)
	e, err := OpenEraser(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	if _, err := e.Delete(t.Context(), []string{"p:k"}); err != nil {
		t.Fatal(err)
	}
	p.Silence()
	if _, err := e.Delete(t.Context(), []string{"p:k"}); err == nil {
		t.Error("a silent server has deleted a key")
	}
	p.Heal()

	reading := b.proxy()
	c := b.trusted(through(reading))
	was := c.counts.connects.Load()
	reading.Silence()
	await10(t, "new connection", func() bool { return c.counts.connects.Load() > was })
	reading.Heal()
	b.awaitTrust(c)
}
