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
		for line := range strings.Lines(denials(t, valkey)) {
			if !strings.HasPrefix(line, "walkey_operator: ") { // as whom explain has doctor try everything
				t.Errorf("Valkey has refused something that was tried: %s", line)
			}
		}
	})
}

// usersFile is what deploy/valkey/users.sh makes of users.acl. The test itself remains the default user.
func usersFile(t testing.TB) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "../../deploy/valkey/users.sh")
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "API_PASSWORD=" + apiSecret, "INVALIDATOR_PASSWORD_FILE=" + writeAs(t, t.TempDir(), "password", 0o600, invalidatorSecret+"\n"), "OPERATOR_PASSWORD=" + operatorSecret}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("users.sh: %v", err)
	}
	const off = "user default off sanitize-payload resetchannels -@all\n"
	if !strings.Contains(string(out), off) || strings.Contains(string(out), "_PASSWORD") {
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

// environment is by what a program reaches the servers, or an operator ("operator"): one who reads rows as api does, and who looks
// into keys.
func (s *servers) environment(name string) []string {
	if s.access == nil {
		return []string{"DATABASE_URL=" + s.url, "VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.valkey.Port())}
	}
	url, password := s.apiURL(s.postgres.Port()), apiSecret
	switch name {
	case "operator":
		password = operatorSecret
	case "invalidator":
		url, password = s.secureURL("walkey_invalidator", invalidatorSecret, "sslrootcert", s.access.root, "sslcert", s.access.cert, "sslkey", s.access.key), invalidatorSecret
	}
	return []string{
		"DATABASE_URL=" + url, "VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.access.valkeyPort),
		"VALKEY_TLS=true", "VALKEY_CA=" + s.access.root, "VALKEY_USERNAME=walkey_" + name, "VALKEY_PASSWORD=" + password,
	}
}

// atValkey is by what a sub-command reaches Valkey: in a secure stack those that look into keys come as an operator, by TLS.
func (s *servers) atValkey(args ...string) []string {
	if s.access != nil && len(args) > 0 && slices.Contains([]string{"explain", "keys", "flush", "status"}, args[0]) {
		return s.environment("operator")[1:]
	}
	return []string{"VALKEY_HOST=" + s.valkey.Host(), "VALKEY_PORT=" + strconv.Itoa(s.valkey.Port())}
}

// with is the environment by which user reaches Valkey and role reaches Postgres.
func (s *servers) with(user, role string) []string {
	return append(s.environment(user), s.environment(role)[0])
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
	s.refuses("walkey_api", apiSecret, "SET bloodofjesus:walkey:heartbeat forged", "GET other:application", "FLUSHALL")
	s.refuses("walkey_invalidator", invalidatorSecret, "GET bloodofjesus:session:somebody", "UNLINK bloodofjesus:session:somebody", "SET other:application x", "CONFIG GET maxmemory")
	if n := s.ask("EXISTS " + detailKey); n != ":1" {
		t.Errorf("the entry is gone: %s", n)
	}
	s.ask("ACL LOG RESET") // all of that was to be refused
}

// as runs a command as a user of Valkey and gives what it says.
func (s *servers) as(user, password string, words ...string) string {
	s.t.Helper()
	command := exec.CommandContext(s.t.Context(), "valkey-cli", append([]string{"-p", strconv.Itoa(s.valkey.Port()), "--user", user}, words...)...)
	command.Env = append(os.Environ(), "REDISCLI_AUTH="+password, "VALKEYCLI_AUTH="+password)
	out, err := command.CombinedOutput()
	if err != nil {
		s.t.Errorf("%s: %q: %s%v", user, words, out, err)
	}
	return string(out)
}

// refuses checks that Valkey refuses commands to a user.
func (s *servers) refuses(user, password string, commands ...string) {
	s.t.Helper()
	for _, c := range commands {
		if out := s.as(user, password, strings.Fields(c)...); !strings.Contains(out, "NOPERM") && !strings.Contains(out, "ACL failure in script") {
			s.t.Errorf("%s: %s: %s", user, c, out)
		}
	}
}

// What an operator's user is enough for, and what it is not: it looks into what rules name and deletes it, and neither writes nor
// sees what a session is.
func TestOperatorsRights(t *testing.T) {
	t.Parallel()
	s := newStackFor(t, true, "max_slot_wal_keep_size=1GB")
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.psql(`insert into materials (title, material_type) select 'm' || i, 'article' from generate_series(1, 3) i`)
	for _, path := range []string{"/api/materials/", detailPath(1), detailPath(2), detailPath(3)} {
		api.waitHit(path)
	}
	const session, foreign = "bloodofjesus:session:somebody", "bloodofjesus:1:django"
	s.valkeyDo("SET", session, "whose it is")
	s.valkeyDo("SET", foreign, "another's")
	s.valkeyDo("HSET", foreign+":hash", "field", "another's")
	operator := s.environment("operator")

	e := s.explain(operator, "materials", "1")
	if len(e.Keys) != 3 || e.Keys[0].Stored[0].Parts[0].Kind != "value" || e.Keys[1].Stored[0].Parts[0].Kind != "value" || e.Keys[1].Stored[0].Memory <= 0 {
		t.Errorf("explain a row: %+v", e)
	}
	for key, want := range map[string]string{session: "other", foreign: "hidden", foreign + ":hash": "hidden"} {
		e := s.explain(operator, "--key", key)
		if stored := e.Keys[0].Stored[0]; len(stored.Parts) != 1 || stored.Parts[0].Kind != want || stored.Memory <= 0 {
			t.Errorf("explain %s: %+v", key, e)
		}
	}
	listed := s.must(operator, "invalidator", "keys")
	for _, key := range []string{detailKey, session, foreign, "bloodofjesus:walkey:heartbeat", "bloodofjesus:walkey:apis"} {
		if !strings.Contains(listed, "  "+key+"\n") {
			t.Errorf("keys does not list %s:\n%s", key, listed)
		}
	}
	found, code := s.doctor(s.with("operator", "invalidator"))
	if bad := found.bad(); len(bad) > 0 || code != 0 {
		t.Errorf("doctor: exit code %d, %q", code, bad)
	}
	if out := s.must(operator, "invalidator", "flush", "material:1", "--yes"); out != "deleted 1 keys\n" {
		t.Errorf("flush a key: %q", out)
	}
	if out := s.must(operator, "invalidator", "flush", "--table=materials", "--yes"); out != "deleted 3 keys\n" {
		t.Errorf("flush a table: %q", out)
	}
	if out := s.must(operator, "invalidator", "flush", "--all", "--yes"); !strings.HasPrefix(out, "deleted ") {
		t.Errorf("flush all: %q", out)
	}
	invalidator.stop() // so that status asks by itself
	r, code := s.status(append(operator, nowhere)...)
	if code != 1 || !r.Valkey.Up || !r.Postgres.Up || len(r.APIs) != 1 {
		t.Errorf("status: exit code %d, %+v", code, r)
	}

	s.valkeyDo("SET", detailKey, "there")
	if out := s.as("walkey_operator", operatorSecret, "GET", detailKey); out != "there\n" {
		t.Errorf("reads %q", out)
	}
	s.refuses("walkey_operator", operatorSecret,
		"GET "+session, "GETRANGE "+session+" 0 -1", "EVAL_RO return(redis.call('GET',KEYS[1])) 1 "+session, "UNLINK "+session, "EXPIRE "+session+" 1", "DUMP "+session,
		"GET "+foreign, "UNLINK "+foreign, "TYPE other:key", "MEMORY USAGE other:key",
		"SET "+detailKey+" forged", "EVAL return(1) 1 "+detailKey, "HSET bloodofjesus:materials_list_active f forged", "SET bloodofjesus:walkey:heartbeat forged", "UNLINK bloodofjesus:walkey:heartbeat",
		"CONFIG GET maxmemory", "FLUSHALL", "KEYS *", "ACL LIST", "MONITOR", "CLIENT LIST")
	s.ask("ACL LOG RESET") // all of that, and what doctor tries, was to be refused
}
