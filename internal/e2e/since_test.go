package e2e

import (
	"context"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walkey/internal/cache"
)

// tokenReader is another process before the same cache, as far as Valkey can tell: it answers the title of material 1, not
// older than a Consistency-Token.
type tokenReader struct {
	http.Handler
	cache *cache.Cache
}

func (s *servers) startTokenReader() *tokenReader {
	s.t.Helper()
	c, err := cache.Open(cache.Options{Host: s.valkey.Host(), Port: s.valkey.Port(), Prefix: "bloodofjesus", MaxStaleness: s.staleness})
	if err != nil {
		s.t.Fatal(err)
	}
	pool, err := pgxpool.New(s.t.Context(), s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	at := c.Field("materials_list_active", "titles")
	load := func(ctx context.Context) (content cache.Content, err error) {
		var title string
		err = pool.QueryRow(ctx, "select title from materials where id = 1").Scan(&title)
		return cache.Content{Body: []byte(title)}, err
	}
	r := &tokenReader{cache: c}
	r.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		fetch := c.Fetch
		if token := q.Header.Get("Consistency-Token"); token != "" {
			fetch = func(ctx context.Context, at cache.Address, ttl cache.TTL, load cache.Loader) (cache.Value, cache.Outcome, error) {
				return c.FetchSince(ctx, at, ttl, position(s.t, token), load)
			}
		}
		value, outcome, err := fetch(q.Context(), at, cache.Lists, load)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Cache-Status", outcome.String())
		_, _ = w.Write(value.Encoded())
	})
	s.t.Cleanup(func() {
		c.Close()
		pool.Close()
	})
	return r
}

// position reads a position in the WAL.
func position(t testing.TB, token string) uint64 {
	high, low, _ := strings.Cut(token, "/")
	n, ok := new(big.Int).SetString(high+fmt.Sprintf("%08s", low), 16)
	if !ok || !n.IsUint64() {
		t.Errorf("%q is no position", token)
	}
	return n.Uint64()
}

// ask gives the version in the title, and where it came from. The token may be empty.
func (r *tokenReader) ask(t testing.TB, token string) (version int, status string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Consistency-Token", token)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, request)
	version, err = strconv.Atoi(w.Body.String())
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d, %q", w.Code, w.Body)
	}
	return version, w.Header().Get("Cache-Status")
}

// edit writes a version by psql and gives the token of that write.
func (s *servers) edit(version int) (token string) {
	s.t.Helper()
	command := exec.Command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", s.url,
		"-c", fmt.Sprintf("update materials set title = '%d' where id = 1", version), "-c", "select pg_current_wal_insert_lsn()")
	out, err := command.CombinedOutput()
	if err != nil {
		s.t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// Who shows the token of a write gets no older answer, from whatever process: by the cache while the invalidator keeps up,
// past it while it is frozen or dead.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.startAPI() // migrates
	invalidator := s.startInvalidator()
	s.psql("insert into materials (title) values ('0')")
	readers := []*tokenReader{s.startTokenReader(), s.startTokenReader()}
	careless := s.startTokenReader() // who never saw a newer answer, and never says what it knows
	trusted := func() {
		t.Helper()
		for _, r := range append(readers, careless) {
			eventually(t, "the cache is trusted", func() error {
				if ok, why := r.cache.Trusted(); !ok {
					return fmt.Errorf("not trusted: %s", why)
				}
				return nil
			})
		}
	}
	version := 0
	// round writes, and asks every reader at once. It says how often the answer came past the cache.
	round := func() (past int) {
		t.Helper()
		version++
		token := s.edit(version)
		for _, r := range readers {
			got, status := r.ask(t, token)
			if got < version {
				t.Errorf("after version %d with its token %s: version %d (%s)", version, token, got, status)
			}
			if strings.Contains(status, "consistency-token") {
				past++
			}
		}
		return past
	}

	trusted()
	const rounds = 50
	past := 0
	for range rounds {
		past += round()
	}
	if past > rounds {
		t.Errorf("%d of %d answers came past the cache although the invalidator kept up", past, 2*rounds)
	}
	t.Logf("%d of %d answers came past the cache", past, 2*rounds)

	for _, r := range append(readers, careless) {
		eventually(t, "a hit", func() error {
			if _, status := r.ask(t, ""); !strings.HasPrefix(status, "walkey; hit") {
				return fmt.Errorf("%s", status)
			}
			return nil
		})
	}
	invalidator.signal(syscall.SIGSTOP)
	old, past := 0, 0
	for frozen := time.Now(); time.Since(frozen) < s.staleness+time.Second; {
		past += round()
		if got, _ := careless.ask(t, ""); got < version {
			old++
		}
	}
	if old == 0 {
		t.Error("no answer without a token was old: the test shows nothing")
	}
	if past == 0 {
		t.Error("nothing came past the cache while the invalidator was frozen")
	}
	invalidator.signal(syscall.SIGCONT)
	trusted()
	round()

	invalidator.kill()
	for dead := time.Now(); time.Since(dead) < s.staleness/2; {
		round()
	}
	s.startInvalidator()
	for back := time.Now(); time.Since(back) < time.Second; {
		round()
	}
	trusted()
	for range 5 {
		past = round()
	}
	if past == len(readers) {
		t.Error("answers still come past the cache")
	}
}

// BenchmarkReadYourWrites measures from the return of a COMMIT to the answer that has it, by token, from the cache.
func BenchmarkReadYourWrites(b *testing.B) {
	s := newStack(b)
	s.startAPI()
	s.startInvalidator()
	s.psql("insert into materials (title) values ('0')")
	r := s.startTokenReader()
	eventually(b, "the cache is trusted", func() error {
		if ok, why := r.cache.Trusted(); !ok {
			return fmt.Errorf("not trusted: %s", why)
		}
		return nil
	})
	conn := s.connect()
	var took []time.Duration
	past := 0
	for version := 1; b.Loop(); version++ {
		mustExec(b, conn, "update materials set title = $1 where id = 1", strconv.Itoa(version))
		committed := time.Now()
		var token string
		if err := conn.QueryRow(b.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&token); err != nil {
			b.Fatal(err)
		}
		got, status := r.ask(b, token)
		took = append(took, time.Since(committed))
		if got < version {
			b.Fatalf("version %d after %d (%s)", got, version, status)
		}
		if strings.Contains(status, "consistency-token") {
			past++
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(past)/float64(len(took)), "past-the-cache/op")
}
