package api

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Editor is someone who may change materials.
type Editor struct {
	ID          int64     `json:"id"`
	Username    string    `json:"username"`
	DisplayName string    `json:"display_name"`
	Language    string    `json:"language"`
	Active      bool      `json:"is_active"`
	Created     time.Time `json:"created_at"`
}

const (
	editorColumns   = `id, username, display_name, language, is_active, created_at`
	maxUsername     = 150 // characters, as in Django
	maxDisplayName  = 150 // characters
	uniqueViolation = "23505"
)

// ErrNoEditor and ErrEditorExists are what is wrong with a username.
var (
	ErrNoEditor     = errors.New("there is no editor of this name")
	ErrEditorExists = errors.New("there is an editor of this name already")
)

var languageTag = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)

// AddEditor adds an active editor. It names everything that is wrong with what it is given.
func (s *Store) AddEditor(ctx context.Context, username, displayName, language, password string) (Editor, error) {
	err := errors.Join(checkName("the username", username, maxUsername), checkPassword(password))
	if displayName != "" {
		err = errors.Join(err, checkName("the display name", displayName, maxDisplayName))
	}
	if !languageTag.MatchString(language) {
		err = errors.Join(err, fmt.Errorf("%q is not a language tag like en or pt-BR", language))
	}
	if err != nil {
		return Editor{}, err
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return Editor{}, err
	}
	return s.editor(ctx, "adding an editor", `INSERT INTO public.editors (username, display_name, language, password)
		VALUES ($1, $2, $3, $4) RETURNING `+editorColumns, username, displayName, language, hash)
}

// SetPassword gives an editor a new password. Sessions that were begun with the old one end.
func (s *Store) SetPassword(ctx context.Context, username, password string) (Editor, error) {
	if err := checkPassword(password); err != nil {
		return Editor{}, err
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return Editor{}, err
	}
	return s.editor(ctx, "changing a password", `UPDATE public.editors SET password = $2, updated_at = now()
		WHERE username = $1 RETURNING `+editorColumns, username, hash)
}

// DeactivateEditor takes an editor's access away. What sessions there are end with their next request.
func (s *Store) DeactivateEditor(ctx context.Context, username string) (Editor, error) {
	return s.editor(ctx, "deactivating an editor", `UPDATE public.editors SET is_active = false, updated_at = now()
		WHERE username = $1 RETURNING `+editorColumns, username)
}

// Editors gives all editors by name.
func (s *Store) Editors(ctx context.Context) (editors []Editor, err error) {
	err = s.read(ctx, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, `SELECT `+editorColumns+` FROM public.editors ORDER BY username`)
		if err != nil {
			return err
		}
		editors, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Editor])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the editors: %w", err)
	}
	return editors, nil
}

// editor runs a statement about one editor.
func (s *Store) editor(ctx context.Context, doing, sql string, args ...any) (Editor, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return Editor{}, fmt.Errorf("%s: %w", doing, err)
	}
	e, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Editor])
	server, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Editor{}, ErrNoEditor
	case refused && server.Code == uniqueViolation:
		return Editor{}, ErrEditorExists
	case err != nil:
		return Editor{}, fmt.Errorf("%s: %w", doing, err)
	}
	return e, nil
}

// account is what a login is checked against.
type account struct {
	ID       int64
	Password string
	Language string
	Active   bool
}

// account finds an editor by name. found is false when there is none.
func (s *Store) account(ctx context.Context, username string) (a account, found bool, err error) {
	err = s.read(ctx, func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT id, password, language, is_active FROM public.editors WHERE username = $1`, username).
			Scan(&a.ID, &a.Password, &a.Language, &a.Active)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return account{}, false, nil
	case err != nil:
		return account{}, false, fmt.Errorf("finding an editor: %w", err)
	}
	return a, true, nil
}

// upgradePassword puts a better hash of the same password in the place of the one that was verified. current tells what
// is stored afterwards; it is another's when the password was changed meanwhile.
func (s *Store) upgradePassword(ctx context.Context, a account, hash string) (current string, err error) {
	err = s.pool.QueryRow(ctx, `WITH upgraded AS (
			UPDATE public.editors SET password = $3, updated_at = now() WHERE id = $1 AND password = $2 RETURNING password
		) SELECT coalesce((SELECT password FROM upgraded), (SELECT password FROM public.editors WHERE id = $1), '')`,
		a.ID, a.Password, hash).Scan(&current)
	if err != nil {
		return "", fmt.Errorf("storing a better hash of a password: %w", err)
	}
	return current, nil
}

// profile is what is cached about an editor. Only active ones have one.
type profile struct {
	ID          int64  `json:"id"`
	Username    string `json:"username"`
	DisplayName string `json:"display_name"`
	Language    string `json:"language"`
	Stamp       string `json:"stamp"` // of the stored password hash; clients don't get it
}

// profile loads an active editor who still has this language. The language belongs to the key: a profile that moved to
// another is not found here, and stays so until it moves back, of which the key is told.
func (s *Store) profile(ctx context.Context, id int64, language string) (p profile, found bool, err error) {
	rows, err := load(ctx, s, func(row pgx.CollectableRow) (p profile, err error) {
		var hash string
		err = row.Scan(&p.ID, &p.Username, &p.DisplayName, &p.Language, &hash)
		p.Stamp = stampOf(hash)
		return p, err
	}, `SELECT id, username, display_name, language, password FROM public.editors
		WHERE id = $1 AND language = $2 AND is_active`, id, language)
	if err != nil {
		return profile{}, false, fmt.Errorf("loading the profile of editor %d: %w", id, err)
	}
	if len(rows) == 0 {
		return profile{}, false, nil
	}
	return rows[0], true, nil
}

// language gives the language that an active editor has now.
func (s *Store) language(ctx context.Context, id int64) (language string, found bool, err error) {
	err = s.read(ctx, func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT language FROM public.editors WHERE id = $1 AND is_active`, id).Scan(&language)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("loading the language of editor %d: %w", id, err)
	}
	return language, true, nil
}

func checkName(what, name string, longest int) error {
	switch {
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%s holds a character that no name has", what)
	case strings.TrimSpace(name) == "" || strings.TrimSpace(name) != name:
		return fmt.Errorf("%s is empty or begins or ends with a space", what)
	case utf8.RuneCountInString(name) > longest:
		return fmt.Errorf("%s is longer than %d characters", what, longest)
	}
	return nil
}

func checkPassword(password string) error {
	if len(password) < minPassword || len(password) > maxPassword {
		return fmt.Errorf("the password has %d bytes; give it %d to %d", len(password), minPassword, maxPassword)
	}
	return nil
}
