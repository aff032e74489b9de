package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// asUser is by what a program reaches a Valkey of several servers as one of the users of users.acl.
func asUser(name, password string, where ...string) []string {
	return append([]string{"VALKEY_USERNAME=walkey_" + name, "VALKEY_PASSWORD=" + password}, where...)
}

// On a cluster the commands see what lies on every primary, and status and doctor what each of them says, with the rights of users.acl.
func TestCommandsOnACluster(t *testing.T) {
	t.Parallel()
	c := embeddedtest.ValkeyCluster(t, embedded.ClusterOptions{Settings: map[string]string{"aclfile": writeAs(t, t.TempDir(), "users.acl", 0o600, usersFile(t))}})
	addresses := "VALKEY_ADDRS=" + strings.Join(c.Addrs("127.0.0.1"), ",")
	s := newStackFor(t, false)
	s.commandsWork(3, addresses)
	for _, n := range c.Nodes {
		wantNoDenials(t, n.Valkey)
	}
}

// And what the sentinels' primary says.
func TestCommandsBehindSentinels(t *testing.T) {
	t.Parallel()
	c := embeddedtest.ValkeySentinels(t, embedded.SentinelOptions{Replicas: 1, Settings: map[string]string{"aclfile": writeAs(t, t.TempDir(), "users.acl", 0o600, usersFile(t))}})
	s := newStackFor(t, false)
	s.commandsWork(1, "VALKEY_ADDRS="+strings.Join(c.Addrs(), ","), "VALKEY_SENTINEL_MASTER="+embedded.SentinelName)
	for _, n := range c.Servers {
		wantNoDenials(t, n.Valkey)
	}
}

// triedByDoctor is what doctor tries as the invalidator's user, who need not be able to do it.
var triedByDoctor = []string{"client|caching", "client|tracking", "config|get", "hdel", "hget", "hlen", "hset", "pexpire", "pttl"}

// wantNoDenials checks that nothing was refused but what doctor tries, as an operator and as the invalidator.
func wantNoDenials(t *testing.T, v *embedded.Valkey) {
	t.Helper()
	for line := range strings.Lines(denials(t, v)) {
		user, what, _ := strings.Cut(strings.TrimSuffix(line, " (toplevel)\n"), ": command ")
		if user != "walkey_operator" && (user != "walkey_invalidator" || !slices.Contains(triedByDoctor, what)) {
			t.Errorf("refused: %s", line)
		}
	}
}

// commandsWork runs two api, an invalidator and each command that looks at them, on a Valkey of so many primaries.
func (s *servers) commandsWork(primaries int, where ...string) {
	t := s.t
	t.Helper()
	apis := []*program{s.startAPI(asUser("api", apiSecret, where...)...), s.startAPI(asUser("api", apiSecret, where...)...)}
	invalidator := s.startInvalidator(asUser("invalidator", invalidatorSecret, where...)...)
	s.psql(`insert into materials (title, material_type) select 'm' || i, 'article' from generate_series(1, 20) i`)
	for i := range 20 {
		apis[i%2].waitHit("/api/materials/" + strconv.Itoa(i+1) + "/")
	}
	env := asUser("operator", operatorSecret, where...)
	if lines := strings.Count(s.must(env, "invalidator", "keys", "material:*"), "\n"); lines != 20 {
		t.Errorf("keys lists %d of 20", lines)
	}
	if e := s.explain(env, "materials", "7"); e.Keys[1].Stored[0].Type != "string" || e.Keys[1].Stored[0].Parts[0].Kind != "value" {
		t.Errorf("%+v", e.Keys[1])
	}
	if e := s.explain(env, "--key", "material:8"); len(e.Keys[0].Rules) != 1 || e.Keys[0].Stored[0].Parts[0].Kind != "value" {
		t.Errorf("%+v", e.Keys[0])
	}
	d, _ := s.doctor(asUser("invalidator", invalidatorSecret, where...))
	for _, check := range []string{"heartbeat", "Valkey connection", "Valkey primary", "Valkey version", "Valkey ACL"} {
		if !slices.ContainsFunc(d.Checks, func(c struct{ Check, Status, Detail, Mend string }) bool {
			return strings.HasPrefix(c.Check, check) && c.Status == "PASS"
		}) {
			t.Errorf("doctor does not say PASS of %s: %+v", check, d.Checks)
		}
	}
	if n := len(slices.DeleteFunc(d.Checks, func(c struct{ Check, Status, Detail, Mend string }) bool {
		return c.Check != "Valkey health" || !strings.Contains(c.Detail, " answers in ") && !strings.HasPrefix(c.Detail, "answers in ")
	})); n != primaries { // how fast they answer is the machine's matter
		t.Errorf("doctor tells the health of %d servers: %+v", n, d.Checks)
	}
	s.statusTells(apis, invalidator, primaries, env)

	if out := s.must(env, "invalidator", "flush", "--table=materials", "--yes"); out != "deleted 20 keys\n" {
		t.Errorf("flush: %q", out)
	}
	if out := s.must(env, "invalidator", "keys", "material:*"); out != "" {
		t.Errorf("left are\n%s", out)
	}
	if a := apis[0].get(detailPath(1)); strings.Contains(a.Cache, "hit") {
		t.Errorf("after the flush: %s", a)
	}
	eventually(t, "each primary's health is shown", func() error {
		text := fetchText(t, invalidator.Base+"/metrics")
		if n := strings.Count(text, "\nwalkey_valkey_used_memory_bytes{"); n != primaries {
			return fmt.Errorf("of %d nodes", n)
		}
		return nil
	})

	// Who leaves is gone from the list, and without an invalidator the servers are asked.
	apis[1].stop()
	invalidator.stop()
	eventually(t, "status says that nobody is active, and one api is there", func() error {
		r, code := s.status(append(env, nowhere)...)
		if r.State != "nobody active" || code != 1 || len(r.Valkey.Nodes) != primaries || len(r.APIs) != 1 || "http://"+r.APIs[0].Address != apis[0].Base {
			return fmt.Errorf("exit code %d, %+v", code, r)
		}
		return nil
	})
}

// statusTells checks what status says of a healthy system: the invalidator, and the servers alone; for people and as JSON.
func (s *servers) statusTells(apis []*program, invalidator *program, primaries int, env []string) {
	s.t.Helper()
	for _, at := range []string{invalidator.at(), nowhere} {
		asked := append(slices.Clone(env), at)
		eventually(s.t, "status says that all is well, asked "+at, func() error {
			r, code := s.status(asked...)
			if r.State != "healthy" || code != 0 || (r.Process != nil) != (at != nowhere) || len(r.APIs) != len(apis) || len(r.Valkey.Nodes) != primaries {
				return fmt.Errorf("exit code %d, %+v", code, r)
			}
			for _, a := range r.APIs {
				if !a.Trusted || a.HitsLocal == 0 {
					return fmt.Errorf("%+v", a)
				}
			}
			for _, n := range r.Valkey.Nodes {
				if n.Version == "" || n.UsedMemory == 0 || n.Clients == 0 || n.PingSeconds <= 0 {
					s.t.Errorf("%+v", n)
				}
			}
			return nil
		})
		eventually(s.t, "status says so for people", func() error {
			o := s.command(append(asked, "MAX_STALENESS="+s.staleness.String()), "invalidator", "status")
			if o.code != 0 || strings.Count(o.stdout, "\nValkey ") != primaries || strings.Count(o.stdout, "\napi ") != len(apis) || strings.Count(o.stdout, ", trusts the cache") != len(apis) {
				return fmt.Errorf("asked %s: exit code %d\n%s%s", at, o.code, o.stdout, o.stderr)
			}
			return nil
		})
	}
}
