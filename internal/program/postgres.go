package program

import (
	"errors"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// defaultDatabaseURL holds where neither DATABASE_URL nor a variable of libpq names a server.
const defaultDatabaseURL = "postgres://postgres@127.0.0.1:5432/postgres"

// Postgres is the group of options that name the primary. An empty DatabaseURL leaves it to the PG* variables, which
// pgx reads; what they say counts beside a URL too, for all that the URL does not say.
type Postgres struct {
	DatabaseURL string `env:"DATABASE_URL" placeholder:"URL" help:"The Postgres primary. Default: what PGHOST, PGPORT, PGUSER, PGDATABASE or PGSERVICE say, else postgres://postgres@127.0.0.1:5432/postgres. Without sslmode the connection falls back to plain text: say sslmode=verify-full outside one machine."`
}

// Replica is the option that names a hot standby.
type Replica struct {
	DatabaseReplicaURL string `env:"DATABASE_REPLICA_URL" placeholder:"URL" help:"A hot standby of the primary, from which loads come when it has replayed enough. Default: none."`
}

// Check reports a connection string that pgx can't use. It never quotes the string.
func (o *Replica) Check(p *Problems) {
	if o.DatabaseReplicaURL == "" {
		return
	}
	if _, err := pgx.ParseConfig(o.DatabaseReplicaURL); err != nil {
		p.Add("DATABASE_REPLICA_URL", "%s", describeURLMistake(o.DatabaseReplicaURL, err))
	}
}

// namingVariables are those of libpq that name a server, a database or a role: with one of them the default of
// DATABASE_URL does not hold. The others (PGPASSWORD, PGSSLMODE …) add to it.
var namingVariables = []string{"PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"}

// Check puts the default in, and reports a connection string that pgx can't use. It never quotes the string: a malformed
// one can't be redacted reliably.
func (o *Postgres) Check(p *Problems) {
	variable := "DATABASE_URL"
	if o.DatabaseURL == "" {
		o.DatabaseURL = defaultDatabaseURL
		for _, name := range namingVariables {
			if _, found := p.Lookup(name); !found {
				continue
			}
			if os.Getenv(name) == "" {
				p.Add(name, "counts in the environment only, not in .env or as %s_FILE; give DATABASE_URL there", name)
				continue
			}
			o.DatabaseURL, variable = "", name
		}
	}
	_, err := pgx.ParseConfig(o.DatabaseURL)
	switch {
	case err == nil:
	case variable != "DATABASE_URL":
		p.Add(variable, "with the other PG* variables it does not make a connection that can be used; see PGSERVICEFILE, PGPASSFILE and the PGSSL* variables")
	default:
		p.Add(variable, "%s", describeURLMistake(o.DatabaseURL, err))
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
