package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walkey/internal/cache"
	"walkey/internal/cdc"
	"walkey/internal/invalidate"
)

// healthy are facts of which every check says PASS.
func healthy() *facts {
	safe := int64(9 << 30)
	return &facts{
		slotName: "walkey", publicationName: "walkey", beats: true,
		postgres: &postgres{
			user: "walkey_invalidator", database: "app", remote: true, verified: true, encrypted: true, version: 180004, text: "18.4", walLevel: "logical",
			slots: 1, maxSlots: 10, senders: 1, maxSenders: 10, replication: true, rulesKnown: true, publication: true, keep: 10 << 30,
			slot: &slot{plugin: "pgoutput", database: "app", active: true, pid: 7, holder: "walkey of role walkey_invalidator", status: "reserved", retained: 1 << 20, safe: &safe},
		},
		valkey: cache.Server{
			Product: "valkey", Version: "8.0.1", Role: "master", MaxMemory: 1 << 30, UsedMemory: 1 << 20, Policy: "volatile-lru",
			TrackedLimit: 1_000_000, Tracked: 10, SkewErr: time.Millisecond, User: "default",
		},
	}
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	r := report(healthy())
	for _, c := range r.Checks {
		if c.Status != Pass || c.Detail == "" || c.Mend != "" {
			t.Errorf("%+v", c)
		}
	}
	if r.Status != Pass || len(r.Checks) != len(checks) {
		t.Errorf("%s with %d of %d checks", r.Status, len(r.Checks), len(checks))
	}
}

// Each row spoils one thing, which one check finds.
func TestChecks(t *testing.T) {
	t.Parallel()
	lacks := func(problem, sql string, severity invalidate.Severity) invalidate.Finding {
		return invalidate.Finding{Severity: severity, Subject: `"public"."materials"`, Problem: problem, SQL: sql}
	}
	safe := func(bytes int64) *int64 { return &bytes }
	for _, test := range []struct {
		name   string
		spoil  func(*facts)
		status Status
		check  string
		detail string
		mend   string
	}{
		{"a pooler", func(f *facts) { f.postgres.pooled = true }, Warn, "Postgres pooler", "makes up process ids", "own host and port"},
		{"plain text", func(f *facts) { f.postgres.encrypted = false }, Warn, "Postgres TLS", "plain text", "sslmode=verify-full"},
		{"unverified", func(f *facts) { f.postgres.verified = false }, Warn, "Postgres TLS", "not verified", "sslmode=verify-full"},
		{"an old server", func(f *facts) { f.postgres.version = 130000 }, Fail, "Postgres version", "oldest", "upgrade"},
		{"a new server", func(f *facts) { f.postgres.version = 190000 }, Warn, "Postgres version", "tested with 14 to 18", "Walkey"},
		{"a standby", func(f *facts) { f.postgres.standby = true }, Fail, "Postgres primary", "standby", "the primary"},
		{"wal_level", func(f *facts) { f.postgres.walLevel = "replica" }, Fail, "wal_level", "replica", "ALTER SYSTEM SET wal_level = 'logical'"},
		{"no slot left, and one to make", func(f *facts) { f.postgres.slots, f.postgres.slot = 10, nil }, Fail, "replication slots", "still to be made", "max_replication_slots = 20"},
		{"no slot left", func(f *facts) { f.postgres.slots = 10 }, Warn, "replication slots", "all 10", "max_replication_slots = 20"},
		{"no sender left", func(f *facts) { f.postgres.senders = 10 }, Warn, "WAL senders", "all 10", "max_wal_senders = 20"},
		{"no sender left to start with", func(f *facts) { f.postgres.senders, f.postgres.slot.active = 10, false }, Fail, "WAL senders", "all 10", "max_wal_senders = 20"},
		{"a superuser", func(f *facts) { f.postgres.superuser = true }, Warn, "role", "superuser", "roles.sql"},
		{"no right to replicate", func(f *facts) { f.postgres.replication = false }, Fail, "role", "may not replicate", `ALTER ROLE "walkey_invalidator" REPLICATION;`},
		{"no line in pg_hba.conf", func(f *facts) {
			f.postgres.probe = &pgconn.PgError{Code: "28000", Message: "no pg_hba.conf entry for host"}
		}, Fail, "replication connection", "no pg_hba.conf entry", "hostssl"},
		{"a pooler that refuses", func(f *facts) { f.postgres.probe = cdc.ErrPooler }, Fail, "replication connection", "PgBouncer", "own host and port"},
		{"a right that is missing", func(f *facts) { f.postgres.probe = &cdc.SetupError{Problem: "may not", SQL: "ALTER"} }, Fail, "replication connection", "may not", "ALTER"},
		{"no connection left", func(f *facts) { f.postgres.probe = &pgconn.PgError{Code: "53300"} }, Fail, "replication connection", "53300", "max_wal_senders"},
		{"pg_hba that can't be read", func(f *facts) { f.postgres.rulesKnown = false }, Skip, "pg_hba", "may not read", ""},
		{"trust", func(f *facts) {
			f.postgres.rules = []hbaRule{{line: 7, text: "host all all 0.0.0.0 trust", trust: true}}
		}, Warn, "pg_hba", "line 7", "scram-sha-256"},
		{"a broken line", func(f *facts) { f.postgres.rules = []hbaRule{{line: 8, err: "nonsense"}} }, Fail, "pg_hba", "line 8", "pg_reload_conf"},
		{"no publication", func(f *facts) { f.postgres.publication = false }, Fail, "publication", "may not make one", "invalidator setup --role walkey_invalidator"},
		{"no publication yet", func(f *facts) { f.postgres.publication, f.postgres.create = false, true }, Warn, "publication", "when it starts", "invalidator setup"},
		{"a publication that keeps back", func(f *facts) {
			f.postgres.findings = []invalidate.Finding{{Severity: invalidate.Failure, Subject: `"walkey"`, Problem: "no TRUNCATE", SQL: "ALTER PUBLICATION"}}
		}, Fail, "publication", "no TRUNCATE", "ALTER PUBLICATION"},
		{"a table that is not published", func(f *facts) {
			f.postgres.findings = []invalidate.Finding{lacks("not published", "ADD", invalidate.Failure)}
		}, Fail, `table "public"."materials"`, "not published", "ADD"},
		{"a narrow identity", func(f *facts) {
			f.postgres.findings = []invalidate.Finding{lacks("narrow", "FULL", invalidate.Warning)}
		}, Warn, `table "public"."materials"`, "narrow", "FULL"},
		{"a rule about nothing", func(f *facts) {
			f.postgres.findings = []invalidate.Finding{lacks("no such table", "", invalidate.Failure)}
		}, Fail, `table "public"."materials"`, "no such table", "RULES_FILE"},
		{"another program holds the slot", func(f *facts) { f.beats, f.postgres.slot.holder = false, "pg_recvlogical of role postgres" }, Fail, "slot", "pg_recvlogical", "pg_terminate_backend(7)"},
		{"a holder that does not beat", func(f *facts) { f.beats = false }, Fail, "heartbeat", "although the slot is held", "log"},
		{"nobody beats", func(f *facts) { f.beats, f.postgres.slot.active = false, false }, Warn, "heartbeat", "no invalidator", "start the invalidator"},
		{"far behind", func(f *facts) { f.postgres.slot.behind = 10 << 30 }, Warn, "slot", "10 GiB behind", "SyncRep"},
		{"a disk that fills", func(f *facts) { f.postgres.keep, f.postgres.slot.safe, f.postgres.slot.retained = -1, nil, 10<<30 }, Fail, "retained WAL", "disk is full", "teardown"},
		{"nobody holds the slot", func(f *facts) { f.postgres.slot.active = false }, Warn, "slot", "nobody holds", "teardown"},
		{"a lost slot", func(f *facts) { f.postgres.slot.status, f.postgres.slot.reason = "lost", "wal_removed" }, Fail, "slot", "wal_removed", "pg_drop_replication_slot('walkey')"},
		{"a slot that is about to be lost", func(f *facts) { f.postgres.slot.status = "unreserved" }, Fail, "slot", "about to lose", "max_slot_wal_keep_size = '20480MB'"},
		{"a physical slot", func(f *facts) { f.postgres.slot.plugin = "" }, Fail, "slot", "physical", "SLOT_NAME"},
		{"another's slot", func(f *facts) { f.postgres.slot.plugin = "wal2json" }, Fail, "slot", "wal2json", "SLOT_NAME"},
		{"another database's slot", func(f *facts) { f.postgres.slot.database = "other" }, Fail, "slot", "other", "SLOT_NAME"},
		{"WAL without limit", func(f *facts) { f.postgres.keep, f.postgres.slot.safe = -1, nil }, Warn, "retained WAL", "without limit", "max_slot_wal_keep_size = '10GB'"},
		{"the limit in a while", func(f *facts) {
			f.postgres.slot.behind, f.postgres.slot.safe, f.postgres.growth = 1<<30, safe(6<<20), 1<<20
		}, Warn, "retained WAL", "the limit is reached in 6s", "max_slot_wal_keep_size = '20480MB'"},
		{"half of the limit", func(f *facts) { f.postgres.slot.behind, f.postgres.slot.retained = 6<<30, 6<<30 }, Warn, "retained WAL", "more than half", "max_slot_wal_keep_size"},
		{"beyond the limit", func(f *facts) { f.postgres.slot.behind, f.postgres.slot.safe = 11<<30, safe(-1) }, Fail, "retained WAL", "limit is reached", "max_slot_wal_keep_size"},
		{"slots that time out", func(f *facts) { f.postgres.idleTimeout = time.Hour }, Warn, "idle_replication_slot_timeout", "1h0m0s", "idle_replication_slot_timeout = 0"},
		{"a clock before ours", func(f *facts) { f.postgres.skew = 2 * time.Second }, Warn, "Postgres clock", "2s before", "chrony"},
		{"a clock behind ours", func(f *facts) { f.valkey.Skew = -2 * time.Second }, Warn, "Valkey clock", "is 2s behind", "chrony"},
		{"an old Valkey", func(f *facts) { f.valkey.Version = "6.2.1" }, Fail, "Valkey version", "too old", "upgrade"},
		{"a Redis", func(f *facts) { f.valkey.Product = "redis" }, Warn, "Valkey version", "redis", "Valkey 7.2"},
		{"a replica", func(f *facts) { f.valkey.Role = "slave" }, Fail, "Valkey primary", "replica", "VALKEY_HOST"},
		{"a cluster", func(f *facts) { f.valkey.Cluster = true }, Fail, "Valkey primary", "cluster", "VALKEY_HOST"},
		{"memory without limit", func(f *facts) { f.valkey.MaxMemory = 0 }, Warn, "maxmemory-policy", "without limit", "maxmemory"},
		{"eviction of everything, with room", func(f *facts) { f.valkey.Policy = "allkeys-lru" }, Warn, "maxmemory-policy", "sessions", "volatile-lru"},
		{"eviction of everything", func(f *facts) { f.valkey.Policy, f.valkey.UsedMemory = "allkeys-lru", 1<<30 }, Fail, "maxmemory-policy", "sessions", "volatile-lru"},
		{"a full Valkey", func(f *facts) { f.valkey.Policy, f.valkey.UsedMemory = "noeviction", 1<<30 }, Fail, "maxmemory-policy", "nothing can be stored", "volatile-lru"},
		{"a crowded table", func(f *facts) { f.valkey.Tracked = 900_000 }, Warn, "tracking table", "900000 of 1000000", "tracking-table-max-keys 4000000"},
		{"a table of unknown size", func(f *facts) { f.valkey.TrackedLimit = -1 }, Skip, "tracking table", "10 keys", ""},
		{"a weak user", func(f *facts) {
			f.valkey.User, f.valkey.Denied = "weak", []string{"UNLINK", "key raw:*"}
		}, Fail, "Valkey ACL", "UNLINK", "ACL SETUSER weak +unlink '~raw:*'"},
		{"an operator's user", func(f *facts) {
			f.valkey.User, f.valkey.Denied, f.valkey.Looks = "walkey_operator", []string{"SET"}, true
		}, Skip, "Valkey ACL", "looks into keys", ""},
		{"a user who may delete and not withdraw", func(f *facts) {
			f.valkey.User, f.valkey.DeniedWithdraw, f.valkey.DeniedReader = "weak", []string{"HKEYS", "key p:material:*"}, []string{"CLIENT TRACKING"}
		}, Warn, "Valkey ACL", "not allowed: HKEYS, key p:material:*", "ACL SETUSER weak +hkeys '~p:material:*'"},
		{"no tracking for a user of all", func(f *facts) {
			f.valkey.User, f.valkey.DeniedReader = "default", []string{"CLIENT TRACKING"}
		}, Warn, "Valkey ACL", "no local copies", "ACL SETUSER default +client|tracking"},
		{"a user of all that may not write hashes", func(f *facts) {
			f.valkey.User, f.valkey.DeniedReader = "default", []string{"HSET", "CLIENT TRACKING"}
		}, Warn, "Valkey ACL", "not allowed to api: HSET", "another user for api"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := healthy()
			test.spoil(f)
			r := report(f)
			var found []Result
			for _, c := range r.Checks {
				if c.Status != Pass {
					found = append(found, c)
				}
			}
			i := slices.IndexFunc(found, func(c Result) bool { return c.Check == test.check })
			if i < 0 {
				t.Fatalf("%s was not found: %+v", test.check, found)
			}
			c := found[i]
			if c.Status != test.status || !strings.Contains(c.Detail, test.detail) || !strings.Contains(c.Mend, test.mend) {
				t.Errorf("got %+v", c)
			}
			if (c.Status == Fail || c.Status == Warn) != (c.Mend != "") {
				t.Errorf("the mend is %q", c.Mend)
			}
			if test.status == Fail && r.Status != Fail {
				t.Errorf("the report as a whole says %s", r.Status)
			}
		})
	}
}

// What can't be asked is skipped, and why stands in one line.
func TestWithoutServers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		mend string
	}{
		{&pgconn.PgError{Code: "28P01"}, "password"},
		{&pgconn.PgError{Code: "28000", Message: `role "x" does not exist`}, "CREATE ROLE"},
		{&pgconn.PgError{Code: "3D000"}, "database"},
		{&pgconn.PgError{Code: "08P01"}, "own host and port"},
		{fmt.Errorf("open: %w", cdc.ErrPooler), "own host and port"},
		{errors.New("x509: certificate signed by unknown authority"), "sslrootcert"},
	} {
		f := healthy()
		f.postgres, f.postgresErr, f.valkeyErr = nil, test.err, errors.New("WRONGPASS invalid username-password pair")
		r := report(f)
		counts := map[Status]int{}
		for _, c := range r.Checks {
			counts[c.Status]++
		}
		if counts[Fail] != 2 || counts[Skip] != len(checks)-2 || !strings.Contains(r.Checks[0].Mend, test.mend) {
			t.Errorf("%v: %v, mend %q", test.err, counts, r.Checks[0].Mend)
		}
	}
}

// Each finding can be looked up.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if !strings.Contains(string(text), "\n| "+c.name+" | ") {
			t.Errorf("docs/operations.md does not say how to mend %q", c.name)
		}
	}
}

// What is left of the limit at a rate.
func TestForecast(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		safe int64
		rate float64
		want string
	}{
		{1 << 30, 0, "never"}, {1 << 30, -5, "never"}, {1 << 30, 1 << 20, "17m4s"}, {1 << 62, 1, "never"},
	} {
		got := "never"
		if left, known := timeLeft(test.safe, test.rate); known {
			got = left.String()
		}
		if got != test.want {
			t.Errorf("%d bytes at %g/s: %s, want %s", test.safe, test.rate, got, test.want)
		}
	}
}

// The invalidator's own user need not be able to do what only api does.
func TestUserOfTheInvalidatorAlone(t *testing.T) {
	t.Parallel()
	f := healthy()
	f.valkey.User, f.valkey.DeniedReader = "walkey_invalidator", []string{"HSET", "CLIENT TRACKING"}
	if got := valkeyACL(f); len(got) != 1 || got[0].Status != Pass || !strings.Contains(got[0].Detail, "api needs another user") {
		t.Errorf("%+v", got)
	}
}
