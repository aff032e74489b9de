package cache

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExamine(t *testing.T) {
	t.Parallel()
	b := setup(t, "maxmemory=64mb", "maxmemory-policy=volatile-lru", "tracking-table-max-keys=1234")
	b.must("SET", "p:constant", "kept")
	s := examineOne(t, b.eraser, []string{"p:constant"}, []string{"p:material:*", "other:*"})
	if s.Product == "" || s.Version == "" || s.Role != "master" || s.Cluster || s.MaxMemory != 64<<20 || s.UsedMemory == 0 ||
		s.Policy != "volatile-lru" || s.TrackedLimit != 1234 || s.User != "default" || len(s.Denied) != 0 {
		t.Errorf("%+v", s)
	}
	if s.SkewErr <= 0 || max(s.Skew, -s.Skew) > s.SkewErr {
		t.Errorf("the clock of this machine is %s ± %s before itself", s.Skew, s.SkewErr)
	}
	if !b.exists("p:constant") {
		t.Error("a key was deleted")
	}
	if keys, err := b.do("KEYS", "*doctor*").AsStrSlice(); err != nil || len(keys) > 0 {
		t.Errorf("left behind: %q, %v", keys, err)
	}
}

// What the user may not do is a finding, and granting it as it is named mends it.
func TestExamineWithoutRights(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must("ACL", "SETUSER", "weak", "on", ">secret", "~p:*", "+@all", "-unlink", "-scan", "-info", "-client|tracking", "-time", "-config", "-acl")
	e := b.openEraser(func(o *Options) { o.Username, o.Password = "weak", "secret" })
	s := examineOne(t, e, []string{"p:constant", "raw"}, []string{"p:material:*", "other:*"})
	if diff := cmp.Diff([]string{"TIME", "INFO", "UNLINK", "SCAN", "key raw", "key other:*"}, s.Denied); diff != "" {
		t.Errorf("denied (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"CLIENT TRACKING"}, s.DeniedReader); diff != "" {
		t.Errorf("denied to a reader (-want +got):\n%s", diff)
	}
	if s.TrackedLimit != -1 || s.User != "" {
		t.Errorf("%+v", s)
	}
	b.must("ACL", "SETUSER", "weak", "+time", "+info", "+unlink", "+scan", "+client|tracking", "~raw", "~other:*")
	if s := examineOne(t, e, []string{"p:constant", "raw"}, []string{"p:material:*", "other:*"}); len(s.Denied)+len(s.DeniedReader) > 0 {
		t.Errorf("after the grants: %q, %q", s.Denied, s.DeniedReader)
	}
	// Writing is all that it takes to delete.
	b.must("ACL", "SETUSER", "weak", "resetkeys", "~p:walkey:*", "%W~p:*")
	if s := examineOne(t, e, []string{"p:constant"}, []string{"p:material:*"}); len(s.Denied) > 0 {
		t.Errorf("with the right to write: %q", s.Denied)
	} else if diff := cmp.Diff([]string{"key p:constant", "key p:material:*"}, s.DeniedWithdraw); diff != "" {
		t.Errorf("denied to one who withdraws (-want +got):\n%s", diff)
	}
	b.must("ACL", "SETUSER", "weak", "~p:*", "-hkeys", "-getrange")
	if s := examineOne(t, e, []string{"p:constant"}, nil); !slices.Equal(s.DeniedWithdraw, []string{"GETRANGE", "HKEYS"}) {
		t.Errorf("denied to one who withdraws: %q", s.DeniedWithdraw)
	}
}

// A user who looks and can't run a program is told apart from one who lacks something.
func TestExamineAsOneWhoLooks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for user, looks := range map[string]bool{"operator": true, "weak": false, "strong": false} {
		b.must("ACL", "SETUSER", user, "on", ">secret", "%R~p:*", "+@all", "-set")
		switch user {
		case "weak":
			b.must("ACL", "SETUSER", user, "-type")
		case "strong":
			b.must("ACL", "SETUSER", user, "+set", "~p:*")
		}
		e := b.openEraser(func(o *Options) { o.Username, o.Password = user, "secret" })
		if s := examineOne(t, e, []string{"p:constant"}, nil); s.Looks != looks {
			t.Errorf("%s: %+v", user, s)
		}
	}
}

// examineOne examines the only primary.
func examineOne(t *testing.T, e *Eraser, keys, patterns []string) Server {
	t.Helper()
	servers, err := e.Examine(t.Context(), keys, patterns)
	if err != nil || len(servers) != 1 {
		t.Fatalf("%+v, %v", servers, err)
	}
	return servers[0]
}

func TestExamineWithoutServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	if s, err := b.eraser.Examine(t.Context(), nil, nil); err == nil {
		t.Errorf("a dead server says %+v", s)
	}
}
