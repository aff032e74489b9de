package e2e

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

const (
	ownerSecret       = "owner's s3cr3t"
	apiSecret         = "api-s3cr3t:with\\colon"
	invalidatorSecret = "inv4lidator/s3cr3t?"
	operatorSecret    = "oper4tor: s3cr3t"
)

// rolesScript runs deploy/postgres/roles.sql.
func (s *servers) rolesScript() {
	s.t.Helper()
	c := exec.CommandContext(s.t.Context(), "psql", "-X", "-d", s.url, "-f", "../../deploy/postgres/roles.sql")
	c.Env = append(os.Environ(), "OWNER_PASSWORD="+ownerSecret, "API_PASSWORD="+apiSecret, "INVALIDATOR_PASSWORD="+invalidatorSecret)
	out, err := c.CombinedOutput()
	if err != nil {
		s.t.Fatalf("roles.sql: %v\n%s", err, out)
	}
	if len(out) > 0 {
		s.t.Errorf("roles.sql says:\n%s", out)
	}
	keepsSecrets(s.t, "Postgres", s.postgres.Log())
}

// keepsSecrets looks for passwords, also in the forms that SQL and URLs give them.
func keepsSecrets(t testing.TB, who, text string) {
	t.Helper()
	for _, secret := range []string{ownerSecret, apiSecret, invalidatorSecret, operatorSecret, strings.ReplaceAll(ownerSecret, "'", "''"), url.PathEscape(invalidatorSecret), url.QueryEscape(invalidatorSecret)} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the password %q", who, secret)
		}
	}
}

// requireTLS makes the server take Walkey's roles by TLS alone, with a password, the invalidator with a certificate too.
func (s *servers) requireTLS(ca *authority) {
	s.t.Helper()
	dir := s.postgres.SocketDir()
	cert, key := ca.issue(dir, "server")
	s.psql(fmt.Sprintf(`alter system set ssl_cert_file = '%s'`, cert))
	s.psql(fmt.Sprintf(`alter system set ssl_key_file = '%s'`, key))
	s.psql(fmt.Sprintf(`alter system set ssl_ca_file = '%s'`, ca.file(dir)))
	s.psql(`alter system set ssl = on`)
	writeAs(s.t, filepath.Join(dir, "data"), "pg_hba.conf", 0o600, `
host    all       postgres            127.0.0.1/32  trust
hostssl postgres  walkey_owner        127.0.0.1/32  scram-sha-256
hostssl postgres  walkey_api          127.0.0.1/32  scram-sha-256
hostssl postgres  walkey_invalidator  127.0.0.1/32  scram-sha-256 clientcert=verify-full
`)
	if err := s.postgres.Reload(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the server speaks TLS", func() error {
		conn, err := pgx.Connect(s.t.Context(), strings.Replace(s.url, "sslmode=disable", "sslmode=require", 1))
		if err != nil {
			return err
		}
		return conn.Close(s.t.Context())
	})
}

// secureURL leads to the server as a role, by TLS with the server verified.
func (s *servers) secureURL(role, password string, parameters ...string) string {
	values := url.Values{"sslmode": {"verify-full"}}
	for i := 0; i < len(parameters); i += 2 {
		values.Set(parameters[i], parameters[i+1])
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(role, password), Path: "/postgres",
		Host: "127.0.0.1:" + strconv.Itoa(s.postgres.Port()), RawQuery: values.Encode(),
	}
	return u.String()
}

// Nobody is a superuser, everybody comes by verified TLS with a password, each by another of the ways that libpq knows:
// the owner by a service file, api by variables and a password file, the invalidator by a URL and a certificate.
func TestRoles(t *testing.T) {
	t.Parallel()
	s := newStack(t, "max_slot_wal_keep_size=1GB", "log_statement=all", "log_connections=on")
	s.rolesScript()
	s.rolesScript() // it can be repeated
	ca := newAuthority(t, "authority")
	s.requireTLS(ca)
	dir := t.TempDir()
	root := ca.file(dir)
	cert, key := ca.issue(dir, "walkey_invalidator")
	port := strconv.Itoa(s.postgres.Port())

	owner := []string{
		"DATABASE_URL=", "PGSERVICE=walkey",
		"PGSERVICEFILE=" + writeAs(t, dir, "services", 0o600, fmt.Sprintf(
			"[walkey]\nhost=127.0.0.1\nport=%s\ndbname=postgres\nuser=walkey_owner\npassword=%s\nsslmode=verify-full\nsslrootcert=%s\n", port, ownerSecret, root)),
	}
	api := []string{
		"DATABASE_URL=", "PGHOST=127.0.0.1", "PGPORT=" + port, "PGUSER=walkey_api", "PGDATABASE=postgres",
		"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + root,
		"PGPASSFILE=" + writeAs(t, dir, "passwords", 0o600, "127.0.0.1:"+port+":postgres:walkey_api:"+strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(apiSecret)+"\n"),
	}
	invalidator := []string{"DATABASE_URL=" + s.secureURL("walkey_invalidator", invalidatorSecret, "sslrootcert", root, "sslcert", cert, "sslkey", key)}

	s.must(owner, "api", "migrate")
	setup := s.must(owner, "invalidator", "setup", "--role=walkey_invalidator")
	for _, line := range []string{"-- publication walkey: done", "-- role walkey_invalidator: present", "-- slot walkey: left (the invalidator makes it when it starts as walkey_invalidator)"} {
		if !strings.Contains(setup, line+"\n") {
			t.Errorf("setup by the owner does not say %q:\n%s", line, setup)
		}
	}
	service := s.startAPI(api...)
	follower := s.startInvalidator(invalidator...)
	s.seed("one")
	service.waitHit(detailPath(1))
	s.psql("update materials set title = 'uno' where id = 1")
	service.waitFor(detailPath(1), "the new title", hasTitle("uno"))
	service.waitHit(detailPath(1))

	conn := s.connect()
	var secure, plain int
	if err := conn.QueryRow(t.Context(), `select count(*) filter (where ssl), count(*) filter (where not ssl)
		from pg_stat_ssl join pg_stat_activity using (pid) where usename like 'walkey%'`).Scan(&secure, &plain); err != nil {
		t.Fatal(err)
	}
	if secure < 3 || plain != 0 { // api, the stream and the gate
		t.Errorf("%d connections by TLS, %d in plain text", secure, plain)
	}
	reader, err := pgx.Connect(t.Context(), strings.TrimPrefix(invalidator[0], "DATABASE_URL="))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close(t.Context()) }()
	if _, err := reader.Exec(t.Context(), "select * from materials"); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("the invalidator reads a table: %v", err)
	}

	found, code := s.doctor(invalidator)
	if diff := cmp.Diff([]string{"WARN maxmemory-policy"}, found.bad()); diff != "" || code != 0 {
		t.Errorf("doctor as the invalidator: exit code %d\n%s", code, diff)
	}
	for _, refused := range []struct{ name, url, want string }{
		{"plain text", s.secureURL("walkey_invalidator", invalidatorSecret, "sslmode", "disable"), "no pg_hba.conf entry"},
		{"no certificate", s.secureURL("walkey_invalidator", invalidatorSecret, "sslrootcert", root), "valid client certificate"},
		{"another's certificate", s.secureURL("walkey_api", invalidatorSecret, "sslrootcert", root), "password authentication failed"},
		{"a server of another authority", s.secureURL("walkey_api", apiSecret, "sslrootcert", newAuthority(t, "stranger").file(dir)), "unknown authority"},
	} {
		o := s.command([]string{"DATABASE_URL=" + refused.url}, "invalidator", "doctor")
		if o.code != 1 || !strings.Contains(o.stdout, "FAIL  Postgres connection: ") || !strings.Contains(o.stdout, refused.want) {
			t.Errorf("doctor with %s, want %q: exit code %d\n%s%s", refused.name, refused.want, o.code, o.stdout, o.stderr)
		}
		keepsSecrets(t, "doctor with "+refused.name, o.stdout+o.stderr)
	}
	keepsSecrets(t, "Postgres", s.postgres.Log())
	keepsSecrets(t, "api", service.Log.String())
	keepsSecrets(t, "invalidator", follower.Log.String())
}
