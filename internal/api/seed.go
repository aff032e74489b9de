package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// samples are the rows that Seed goes round, with the number of the round in the title.
var samples = []Material{
	{Title: "First steps", Description: "Where to begin, in five minutes.", MaterialType: "article", IconName: "book-open", File: "materials/first-steps.pdf"},
	{Title: "A walk through the archive", Description: "What is kept, and how to find it.", MaterialType: "video", IconName: "play", File: "materials/archive.mp4"},
	{Title: "Evening talk", Description: "Recorded in the old library.", MaterialType: "audio", IconName: "headphones", File: "materials/evening-talk.mp3"},
	{Title: "Glossary", Description: "Every word that is used, explained once.", MaterialType: "article", IconName: "list", File: "materials/glossary.pdf"},
	{Title: "Exercises", Description: "Twelve questions with answers.", MaterialType: "workbook", IconName: "pencil", File: "materials/exercises.pdf"},
	{Title: "Map of the grounds", Description: "For printing, on one sheet.", MaterialType: "image", IconName: "map", File: "materials/map.png"},
}

// Seeded says what Seed did.
type Seeded struct {
	Added   int64 `json:"added"`
	Present int64 `json:"present"` // rows in the table afterwards
}

// Seed puts rows of sample materials into an empty table, and leaves one that holds any row alone.
func (s *Store) Seed(ctx context.Context, rows int) (result Seeded, err error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return Seeded{}, fmt.Errorf("seeding: %w", err)
	}
	defer func() {
		if rollback := tx.Rollback(ctx); !errors.Is(rollback, pgx.ErrTxClosed) {
			err = errors.Join(err, rollback)
		}
	}()
	// Two that seed at the same time take turns; readers and other writers go on.
	if _, err := tx.Exec(ctx, `LOCK TABLE public.materials IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return Seeded{}, fmt.Errorf("seeding: %w", err)
	}
	var present int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM public.materials`).Scan(&present); err != nil {
		return Seeded{}, fmt.Errorf("counting the materials: %w", err)
	}
	if present > 0 {
		return Seeded{Present: present}, nil
	}
	added, err := tx.CopyFrom(ctx, pgx.Identifier{"public", "materials"},
		[]string{"title", "description", "material_type", "icon_name", "file"},
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
			m := samples[i%len(samples)]
			if round := i / len(samples); round > 0 {
				m.Title = fmt.Sprintf("%s, part %d", m.Title, round+1)
			}
			return []any{m.Title, m.Description, m.MaterialType, m.IconName, m.File}, nil
		}))
	if err != nil {
		return Seeded{}, fmt.Errorf("adding sample materials: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return Seeded{}, fmt.Errorf("seeding: %w", err)
	}
	return Seeded{Added: added, Present: added}, nil
}
