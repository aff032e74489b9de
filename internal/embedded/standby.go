package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"walkey/internal/freeport"
)

// StandbyOptions says how a standby is to be started.
type StandbyOptions struct {
	// Name is the standby's name: its physical slot on the primary is made under it, and so is its application_name, for
	// synchronous_standby_names. 1 to 63 of a-z, 0-9 and _.
	Name string

	// Settings go over the primary's. From version 17 on, sync_replication_slots=on lets logical slots that may fail over come along.
	Settings map[string]string

	// Dir, Port and Log are as those of [PostgresOptions].
	Dir  string
	Port int
	Log  io.Writer
}

// StartStandby makes a streaming hot standby of a server that runs, and returns when it takes connections, which is not to say that it
// has caught up. Its slot on the primary stays when it is stopped.
func StartStandby(ctx context.Context, primary *Postgres, o StandbyOptions) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	f, err := openFolder(o.Dir, primary.user)
	if err != nil {
		return nil, fmt.Errorf("folder for Postgres: %w", err)
	}
	settings := maps.Clone(primary.settings)
	if settings == nil {
		settings = map[string]string{}
	}
	maps.Copy(settings, map[string]string{
		"primary_slot_name": o.Name,
		"primary_conninfo": fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres application_name=%s sslmode=disable",
			freeport.Host, primary.Port(), o.Name),
		"hot_standby_feedback": "on", // a logical slot that comes along needs it
	})
	maps.Copy(settings, o.Settings)
	p := &Postgres{install: primary.install, user: primary.user, folder: f, log: &logBuffer{next: o.Log}, settings: settings, port: o.Port}
	err = p.copyFrom(ctx, primary, o.Name)
	if err == nil {
		err = p.create(ctx, o.Port == 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a standby in %s: %w", f.path, err), f.remove())
	}
	return p, nil
}

// copyFrom copies the primary's files while it runs, as pg_basebackup does (which not every installation has).
func (p *Postgres) copyFrom(ctx context.Context, primary *Postgres, slot string) (err error) {
	conn, err := pgx.Connect(ctx, primary.URL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	// Before the copy: from here on the primary keeps the WAL that the copy lacks.
	if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", slot); err != nil {
		return err
	}
	begin, end := "pg_backup_start('standby', true)", "pg_backup_stop(false)"
	if p.install.major < 15 {
		begin, end = "pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, "SELECT "+begin); err != nil {
		return err
	}
	if err := copyRunning(primary.data(), p.data()); err != nil {
		return fmt.Errorf("copy %s: %w", primary.data(), err)
	}
	var label string
	if err := conn.QueryRow(ctx, "SELECT labelfile FROM "+end).Scan(&label); err != nil {
		return err
	}
	for name, text := range map[string]string{"backup_label": label, "standby.signal": ""} {
		if err := os.WriteFile(filepath.Join(p.data(), name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return give(p.data(), p.user)
}

// copyRunning copies the data folder of a server that runs. Files may go meanwhile, and change: the WAL mends that.
func copyRunning(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && ownFile(name) && filepath.Dir(name) != ".":
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		case !d.Type().IsRegular() || ownFile(name):
			return nil
		}
		err = copyFile(path, filepath.Join(to, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// ownFile tells what of a data folder is a server's own and no part of a copy.
func ownFile(name string) bool {
	switch top, _, _ := strings.Cut(name, string(filepath.Separator)); top {
	case "postmaster.pid", "postmaster.opts", "backup_label", "standby.signal":
		return true
	case "pg_wal", "pg_replslot", "pg_dynshmem", "pg_stat_tmp", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans":
		return true
	}
	return false
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // only read
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}

// Promote makes a standby a primary, and returns when it takes changes.
func (p *Postgres) Promote(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return fmt.Errorf("promote Postgres: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var done bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, "+strconv.Itoa(int(startTimeout.Seconds()))+")").Scan(&done); err != nil {
		return fmt.Errorf("promote Postgres: %w", err)
	}
	if !done {
		return errors.New("promote Postgres: it takes too long")
	}
	return nil
}
