package program

import (
	"errors"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Postgres is the group of options that name the primary.
type Postgres struct {
	DatabaseURL string `env:"DATABASE_URL" default:"postgres://postgres@127.0.0.1:5432/postgres" placeholder:"URL" help:"The Postgres primary. Without sslmode the connection falls back to plain text: say sslmode=verify-full outside one machine."`
}

// Check reports a connection string that pgx can't use. It never quotes the string: a malformed one can't be redacted
// reliably.
func (o *Postgres) Check(p *Problems) {
	if _, err := pgx.ParseConfig(o.DatabaseURL); err != nil {
		p.Add("DATABASE_URL", "%s", describeURLMistake(o.DatabaseURL, err))
	}
}

func describeURLMistake(conn string, err error) string {
	const wayOut = "write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password percent-encoded"
	parsed, urlErr := url.Parse(conn)
	if urlErr != nil || parsed.Scheme == "" {
		return "not a connection string; " + wayOut
	}
	var parseErr *pgconn.ParseConfigError
	if !errors.As(err, &parseErr) {
		return "not usable; " + wayOut
	}
	// pgx's text is "cannot parse `masked string`: reason".
	_, reason, found := strings.Cut(err.Error(), "`: ")
	if !found || quotesSecret(reason, parsed) {
		return "not usable; " + wayOut
	}
	return reason
}

func quotesSecret(text string, u *url.URL) bool {
	secrets := []string{u.Query().Get("password"), u.Query().Get("sslpassword")}
	if password, ok := u.User.Password(); ok {
		secrets = append(secrets, password)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			return true
		}
	}
	return false
}
