package e2e

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"walkey/internal/embedded/embeddedtest"
	"walkey/internal/freeport"
)

// secure has the suite's programs come with the least rights, by TLS on both sides: the roles of deploy/postgres/roles.sql, the
// users of deploy/valkey/users.acl, the memory of valkey.conf. The tests themselves stay superusers.
var secure = os.Getenv("E2E_SECURE") == "true"

// access is how the programs of a secure stack reach its servers.
type access struct {
	ca              *authority
	root, cert, key string // the authority's certificate; the invalidator's own
	valkeyPort      int    // by TLS
}

func newAccess(t testing.TB) *access {
	t.Helper()
	ca, dir := newAuthority(t, "authority"), t.TempDir()
	cert, key := ca.issue(dir, "walkey_invalidator")
	return &access{ca: ca, root: ca.file(dir), cert: cert, key: key}
}

// prepareSecurely has Postgres let the programs in as their roles only, and prepares it as an administrator would.
func (s *servers) prepareSecurely() {
	s.t.Helper()
	s.rolesScript()
	s.requireTLS(s.access.ca)
	owner := []string{"DATABASE_URL=" + s.secureURL("walkey_owner", ownerSecret, "sslrootcert", s.access.root)}
	s.must(owner, "api", "migrate")
	s.must(owner, "invalidator", "setup", "--role=walkey_invalidator")
}

// startValkey gives the stack a Valkey, instead of one that it has.
func (s *servers) startValkey(settings ...string) {
	t := s.t
	t.Helper()
	if s.access == nil {
		s.valkey = embeddedtest.Valkey(t, settings...)
		return
	}
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := s.access.ca.issue(dir, "valkey")
	valkey := embeddedtest.Valkey(t, slices.Concat(shippedSettings(t), []string{
		"aclfile=" + writeAs(t, dir, "users.acl", 0o600, usersFile(t)),
		"tls-port=" + strconv.Itoa(port), "tls-cert-file=" + cert, "tls-key-file=" + key, "tls-ca-cert-file=" + s.access.root, "tls-auth-clients=no",
	}, settings)...)
	s.valkey, s.access.valkeyPort = valkey, port
	t.Cleanup(func() {
		if denials := denials(t, valkey); denials != "" {
			t.Errorf("Valkey has refused something that was tried:\n%s", denials)
		}
	})
}

// usersFile is what deploy/valkey/users.sh makes of users.acl. The test itself remains the default user.
func usersFile(t testing.TB) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "../../deploy/valkey/users.sh")
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "API_PASSWORD=" + apiSecret, "INVALIDATOR_PASSWORD_FILE=" + writeAs(t, t.TempDir(), "password", 0o600, invalidatorSecret+"\n")}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("users.sh: %v", err)
	}
	const off = "user default off sanitize-payload resetchannels -@all\n"
	if !strings.Contains(string(out), off) || strings.Contains(string(out), "@API") {
		t.Fatalf("users.sh prints:\n%s", out)
	}
	return strings.Replace(string(out), off, "user default on nopass sanitize-payload ~* &* +@all\n", 1)
}

// shippedSettings are those of deploy/valkey/valkey.conf.
func shippedSettings(t testing.TB) (settings []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/valkey/valkey.conf")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			settings = append(settings, name+"="+value)
		}
	}
	return settings
}

// environment is by what a program reaches the servers.
func (s *servers) environment(name string) []string {
	if s.access == nil {
		return []string{"DATABASE_URL=" + s.url, "VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.valkey.Port())}
	}
	url, password := s.apiURL(s.postgres.Port()), apiSecret
	if name == "invalidator" {
		url, password = s.secureURL("walkey_invalidator", invalidatorSecret, "sslrootcert", s.access.root, "sslcert", s.access.cert, "sslkey", s.access.key), invalidatorSecret
	}
	return []string{
		"DATABASE_URL=" + url, "VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.access.valkeyPort),
		"VALKEY_TLS=true", "VALKEY_CA=" + s.access.root, "VALKEY_USERNAME=walkey_" + name, "VALKEY_PASSWORD=" + password,
	}
}

// apiURL is the database's URL for api, at a port of Postgres or of a link to it.
func (s *servers) apiURL(port int) string {
	url := s.url
	if s.access != nil {
		url = s.secureURL("walkey_api", apiSecret, "sslrootcert", s.access.root)
	}
	return strings.Replace(url, ":"+strconv.Itoa(s.postgres.Port())+"/", ":"+strconv.Itoa(port)+"/", 1)
}

// valkeyAddr is where the programs find Valkey.
func (s *servers) valkeyAddr() string {
	if s.access == nil {
		return s.valkey.Addr()
	}
	return s.valkey.Host() + ":" + strconv.Itoa(s.access.valkeyPort)
}

// What each program's own role and user are enough for, and what they are not.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	s := newStackFor(t, true, "max_slot_wal_keep_size=1GB")
	if out := s.must(s.environment("api"), "api", "seed", "--rows=3"); !strings.Contains(out, "Added 3") {
		t.Errorf("seed as api: %s", out)
	}
	api := s.startAPI()
	s.startInvalidator()
	api.waitHit(detailPath(1))

	found, code := s.doctor(s.environment("invalidator"))
	if bad := found.bad(); len(bad) > 0 || code != 0 {
		t.Errorf("doctor as the invalidator: exit code %d, %q", code, bad)
	}
	found, code = s.doctor(s.environment("api"))
	if acl := found.mend("Valkey ACL"); code != 1 || !strings.Contains(acl, "+scan") {
		t.Errorf("doctor as api: exit code %d, %q", code, acl)
	}
	for _, c := range []struct{ user, password, command string }{
		{"walkey_api", apiSecret, "SET bloodofjesus:walkey:heartbeat forged"},
		{"walkey_api", apiSecret, "GET other:application"},
		{"walkey_api", apiSecret, "FLUSHALL"},
		{"walkey_invalidator", invalidatorSecret, "GET " + detailKey},
		{"walkey_invalidator", invalidatorSecret, "UNLINK bloodofjesus:session:somebody"},
		{"walkey_invalidator", invalidatorSecret, "CONFIG GET maxmemory"},
	} {
		args := append([]string{"-p", strconv.Itoa(s.valkey.Port()), "--user", c.user}, strings.Fields(c.command)...)
		command := exec.CommandContext(t.Context(), "valkey-cli", args...)
		command.Env = append(os.Environ(), "REDISCLI_AUTH="+c.password, "VALKEYCLI_AUTH="+c.password)
		if out, err := command.CombinedOutput(); err != nil || !strings.Contains(string(out), "NOPERM") {
			t.Errorf("%s: %s: %s%v", c.user, c.command, out, err)
		}
	}
	if n := s.ask("EXISTS " + detailKey); n != ":1" {
		t.Errorf("the entry is gone: %s", n)
	}
	s.ask("ACL LOG RESET") // all of that was to be refused
}
