package api

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walkey/internal/embedded/embeddedtest"
)

func TestProgramsThatStartTogetherMigrateOnce(t *testing.T) {
	t.Parallel()
	database := embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	applied := make([]int, 4)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range applied {
		store := openStore(t, database)
		group.Go(func() (err error) {
			applied[i], err = store.Migrate(ctx, zap.NewNop())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, n := range applied {
		sum += n
	}
	if sum != 2 {
		t.Errorf("migrations applied: %v", applied)
	}
	// What the rest of the API relies on.
	store := openStore(t, database)
	if _, err := store.pool.Exec(t.Context(), `INSERT INTO public.materials DEFAULT VALUES`); err != nil {
		t.Fatal(err)
	}
	if m, found, err := store.material(t.Context(), 1); err != nil || !found || m != (Material{ID: 1}) {
		t.Errorf("%+v, %v, %v", m, found, err)
	}
}

func TestMigrateNeedsNoRightsWhenNothingIsPending(t *testing.T) {
	t.Parallel()
	database := embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	store := openStore(t, database)
	if _, err := store.Migrate(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	readOnly := openStore(t, database+"&default_transaction_read_only=on")
	if n, err := readOnly.Migrate(t.Context(), zap.NewNop()); n != 0 || err != nil {
		t.Errorf("applied %d, %v", n, err)
	}
}

func TestStandbyIsNotUsed(t *testing.T) {
	t.Parallel()
	postgres := embeddedtest.Postgres(t)
	store := openStore(t, postgres.URL())
	if err := store.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	var data string
	if err := store.pool.QueryRow(t.Context(), `SHOW data_directory`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Shutdown(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	// In recovery from now on, it waits for WAL that never comes.
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Ping(t.Context()); !errors.Is(err, pgconn.ErrStandbyConnection) || !Unreachable(err) {
		t.Errorf("got %v", err)
	}
}

func TestReadsSurviveARestartOfTheServer(t *testing.T) {
	t.Parallel()
	postgres := embeddedtest.Postgres(t)
	store := openStore(t, postgres.URL())
	if _, err := store.Migrate(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"fast", "immediate"} {
		// Several connections, all of which will be dead.
		var held []*pgxpool.Conn
		for range 3 {
			conn, err := store.pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
		for _, conn := range held {
			conn.Release()
		}
		if err := postgres.Shutdown(t.Context(), mode); err != nil {
			t.Fatal(err)
		}
		if err := postgres.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := store.list(t.Context(), listQuery{}); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if _, found, err := store.material(t.Context(), 1); err != nil || found {
			t.Errorf("%s: found %v, %v", mode, found, err)
		}
	}
	if err := postgres.Shutdown(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.list(t.Context(), listQuery{}); !Unreachable(err) {
		t.Errorf("while it is away: %v", err)
	}
}

func TestSeed(t *testing.T) {
	t.Parallel()
	store := openStore(t, embeddedtest.Database(t, embeddedtest.SharedPostgres(t)))
	if _, err := store.Migrate(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	results := make([]Seeded, 3)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range results {
		group.Go(func() (err error) {
			results[i], err = store.Seed(ctx, 100)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	added := int64(0)
	for _, r := range results {
		added += r.Added
		if r.Present != 100 {
			t.Errorf("%+v", r)
		}
	}
	materials, _, err := store.list(context.WithoutCancel(t.Context()), listQuery{})
	if err != nil || added != 100 || len(materials) != 100 {
		t.Errorf("added %d, listed %d, %v", added, len(materials), err)
	}
	if materials[0].Title == materials[len(samples)].Title {
		t.Errorf("two materials are called %q", materials[0].Title)
	}
}

// A restarted server is noticed by the first connection to it, once.
func TestNewLifeIsNoticed(t *testing.T) {
	t.Parallel()
	postgres := embeddedtest.Postgres(t)
	store := openStore(t, postgres.URL())
	noticed := 0
	store.OnNewLife(func() { noticed++ })
	for _, want := range []int{0, 1, 2} {
		for range 3 { // connections
			if err := store.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			store.pool.Reset()
		}
		if noticed != want {
			t.Errorf("noticed %d times, want %d", noticed, want)
		}
		if err := postgres.Shutdown(t.Context(), map[bool]string{true: "fast", false: "immediate"}[want == 0]); err != nil {
			t.Fatal(err)
		}
		if err := postgres.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
