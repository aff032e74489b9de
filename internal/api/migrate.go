package api

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Programs that start together take the lock one after the other; each waits this long for it.
const (
	lockRetrySeconds = 1
	lockAttempts     = 300
)

// Migrate brings the schema up to date and gives the number of migrations that it applied. Programs that migrate at the
// same time take turns by an advisory lock. With nothing to do it takes no lock and needs no right to create.
func (s *Store) Migrate(ctx context.Context, logger *zap.Logger) (applied int, err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, fmt.Errorf("reading the migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockRetrySeconds, lockAttempts))
	if err != nil {
		return 0, fmt.Errorf("preparing the migration lock: %w", err)
	}
	db := stdlib.OpenDBFromPool(s.pool)
	defer func() { _ = db.Close() }() // the connections are the pool's
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithSessionLocker(locker), goose.WithSlog(slog.New(zapslog.NewHandler(logger.Core()))))
	if err != nil {
		return 0, fmt.Errorf("reading the migrations: %w", err)
	}
	pending, err := provider.HasPending(ctx)
	if err != nil {
		return 0, fmt.Errorf("looking for pending migrations: %w", err)
	}
	if !pending {
		return 0, nil
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrating: %w", err)
	}
	return len(results), nil
}
