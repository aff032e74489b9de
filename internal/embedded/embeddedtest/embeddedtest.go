// Package embeddedtest gives tests real servers: private ones, and one Postgres that the tests of a package share by databases.
//
// Servers end with the test that asked for them, or with the test binary. A server that is missing on the machine is a failure,
// never a skip. Settings are "name=value".
package embeddedtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"walkey/internal/embedded"
)

// startTimeout bounds the start of one server on a machine that is busy with other tests.
const startTimeout = 2 * time.Minute

var shared struct {
	mu     sync.Mutex
	server *embedded.Postgres // guarded by mu
	err    error              // guarded by mu: what the first start ended with
	ended  bool               // guarded by mu: Main has stopped it
	viaM   bool               // guarded by mu: Main runs the tests
}

// Main runs the tests of a package, stops the shared Postgres and checks that no goroutine is left. Call it from TestMain.
func Main(m *testing.M, options ...goleak.Option) {
	shared.mu.Lock()
	shared.viaM = true
	shared.mu.Unlock()
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared Postgres:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.ended = true
	if shared.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), embedded.StopTimeout)
	defer cancel()
	return shared.server.Stop(ctx)
}

// Postgres starts a private server that ends with the test. Its log is shown when the test fails.
func Postgres(t testing.TB, settings ...string) *embedded.Postgres {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p, err := embedded.StartPostgres(ctx, embedded.PostgresOptions{Settings: parse(t, settings)})
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, p)
	return p
}

// SharedPostgres is the server that all tests of a binary share. It needs [Main] to end it. Use it through [Database], and leave
// its settings alone. A slot's creation waits for the open transactions of other tests, too.
func SharedPostgres(t testing.TB) *embedded.Postgres {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.viaM || shared.ended {
		t.Fatal("the shared Postgres needs a TestMain that calls embeddedtest.Main")
	}
	if shared.server == nil && shared.err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		shared.server, shared.err = embedded.StartPostgres(ctx, embedded.PostgresOptions{
			Settings: map[string]string{"max_wal_senders": "60", "max_replication_slots": "60"},
		})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// Valkey starts a private server that ends with the test. Its log is shown when the test fails.
func Valkey(t testing.TB, settings ...string) *embedded.Valkey {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	v, err := embedded.StartValkey(ctx, embedded.ValkeyOptions{Settings: parse(t, settings)})
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, v)
	return v
}

// Standby starts a streaming standby of a server, under a name of its own among the server's standbys; see [embedded.StandbyOptions].
func Standby(t testing.TB, primary *embedded.Postgres, name string, settings ...string) *embedded.Postgres {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p, err := embedded.StartStandby(ctx, primary, embedded.StandbyOptions{Name: name, Settings: parse(t, settings)})
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, p)
	return p
}

// ValkeyCluster starts a private Valkey Cluster that ends with the test. Its logs are shown when the test fails.
func ValkeyCluster(t testing.TB, o embedded.ClusterOptions) *embedded.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c, err := embedded.StartCluster(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, c)
	return c
}

// ValkeySentinels starts a private primary with replicas and sentinels that end with the test. Their logs are shown when the test
// fails.
func ValkeySentinels(t testing.TB, o embedded.SentinelOptions) *embedded.Sentinels {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	s, err := embedded.StartSentinels(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, s)
	return s
}

type server interface {
	Stop(context.Context) error
	Log() string
}

func stopLater(t testing.TB, s server) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), embedded.StopTimeout)
		defer cancel()
		err := s.Stop(ctx)
		if t.Failed() {
			t.Logf("the end of the log of %T:\n%s", s, s.Log())
		}
		if err != nil {
			t.Errorf("stop %T: %v", s, err)
		}
	})
}

func parse(t testing.TB, settings []string) map[string]string {
	t.Helper()
	parsed := make(map[string]string, len(settings))
	for _, s := range settings {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			t.Fatalf("a setting is name=value, not %q", s)
		}
		parsed[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return parsed
}
