package doctor

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walkey/internal/cdc"
	"walkey/internal/invalidate"
)

func ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func postgresConnection(f *facts) []Result {
	if f.postgresErr == nil {
		return pass("database %s as role %s", f.postgres.database, f.postgres.user)
	}
	return fail(connectionMend(f.postgresErr), "%v", f.postgresErr)
}

const ownAddress = "let DATABASE_URL name the Postgres server's own host and port, not a pooler's"

// connectionMend says what to do about a server that can't be reached.
func connectionMend(err error) string {
	if errors.Is(err, cdc.ErrPooler) {
		return ownAddress
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		switch pg.Code {
		case "28P01":
			return "give the role's password in DATABASE_URL, DATABASE_URL_FILE or a PGPASSFILE"
		case "28000":
			if strings.Contains(pg.Message, "pg_hba.conf") {
				return "add a line for this role, database and address to pg_hba.conf, such as `hostssl DATABASE ROLE ADDRESS/32 scram-sha-256`, and SELECT pg_reload_conf();"
			}
			return "name a role that exists and may log in: CREATE ROLE name LOGIN REPLICATION PASSWORD '...';"
		case "3D000":
			return "name a database that exists in DATABASE_URL"
		case "08P01":
			return ownAddress
		}
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return "start Postgres, or mend host and port in DATABASE_URL; listen_addresses and firewalls count too"
	}
	return "mend DATABASE_URL; for certificates see sslrootcert, sslcert and sslkey"
}

func pooler(f *facts) []Result {
	if f.postgres.pooled {
		return warn(ownAddress,
			"something between here and the server makes up process ids, as a pooler does; one that shares connections breaks the invalidator")
	}
	return pass("connected to the server itself")
}

func encryption(f *facts) []Result {
	p := f.postgres
	switch {
	case !p.remote:
		return pass("within this machine")
	case !p.encrypted:
		return warn("sslmode=verify-full in DATABASE_URL (or PGSSLMODE), and sslrootcert", "rows and passwords cross the network in plain text")
	case !p.verified:
		return warn("sslmode=verify-full in DATABASE_URL (or PGSSLMODE), and sslrootcert", "encrypted, but the server's name is not verified")
	}
	return pass("encrypted, and the server verified")
}

func postgresVersion(f *facts) []Result {
	switch major := f.postgres.version / 10000; {
	case major < 14:
		return fail("upgrade to Postgres 14 or later", "%s; 14 is the oldest that works", f.postgres.text)
	case major > 18:
		return warn("use a version of Walkey that knows it", "%s; Walkey is tested with 14 to 18", f.postgres.text)
	}
	return pass("%s", f.postgres.text)
}

func primary(f *facts) []Result {
	if f.postgres.standby {
		return fail("let DATABASE_URL name the primary", "this server is a standby")
	}
	return pass("this server is the primary")
}

func walLevel(f *facts) []Result {
	if f.postgres.walLevel != "logical" {
		return fail("ALTER SYSTEM SET wal_level = 'logical'; -- and restart the server", "wal_level is %s", f.postgres.walLevel)
	}
	return pass("logical")
}

func slotsLeft(f *facts) []Result {
	p := f.postgres
	left := p.maxSlots - p.slots
	mend := fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; -- and restart the server; or drop a slot that nobody needs", p.maxSlots+10)
	switch {
	case left <= 0 && p.slot == nil:
		return fail(mend, "all %d are in use, and slot %s is still to be made", p.maxSlots, f.slotName)
	case left <= 0:
		return warn(mend, "all %d are in use", p.maxSlots)
	}
	return pass("%d of %d in use", p.slots, p.maxSlots)
}

func sendersLeft(f *facts) []Result {
	p := f.postgres
	mend := fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d; -- and restart the server", p.maxSenders+10)
	switch left := p.maxSenders - p.senders; {
	case left <= 0 && (p.slot == nil || !p.slot.active):
		return fail(mend, "all %d are in use", p.maxSenders)
	case left <= 0:
		return warn(mend, "all %d are in use: after a takeover none may be left", p.maxSenders)
	}
	return pass("%d of %d in use", p.senders, p.maxSenders)
}

func role(f *facts) []Result {
	p := f.postgres
	switch {
	case p.superuser:
		return warn("CREATE ROLE walkey_invalidator LOGIN REPLICATION; -- or deploy/postgres/roles.sql, and connect as that role",
			"%s is a superuser, which the invalidator need not be", p.user)
	case !p.replication:
		return fail(fmt.Sprintf("ALTER ROLE %s REPLICATION;", ident(p.user)), "%s may not replicate", p.user)
	}
	return pass("%s may replicate", p.user)
}

func replicationConnection(f *facts) []Result {
	err := f.postgres.probe
	if err == nil {
		return pass("opened one")
	}
	if setup := (*cdc.SetupError)(nil); errors.As(err, &setup) {
		return fail(setup.SQL, "%s", setup.Problem)
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "53300" {
		return fail("ALTER SYSTEM SET max_wal_senders = 20; -- and restart the server", "%v", err)
	}
	return fail(connectionMend(err), "%v", err)
}

func hostBasedAuthentication(f *facts) []Result {
	p := f.postgres
	if !p.rulesKnown {
		return skip("role %s may not read pg_hba_file_rules; that the connections above were let in is all that can be told", p.user)
	}
	if bad := p.badRules(func(r hbaRule) bool { return r.err != "" }); bad != "" {
		return fail("mend these lines of pg_hba.conf, then SELECT pg_reload_conf();", "the server can't read its pg_hba.conf, and starts with no such file: %s", bad)
	}
	if open := p.badRules(func(r hbaRule) bool { return r.trust }); open != "" {
		return warn("write scram-sha-256 (and hostssl) in place of trust, then SELECT pg_reload_conf();", "lets in anybody from other machines without a password: %s", open)
	}
	return pass("%d lines, none of which lets in other machines without a password", len(p.rules))
}

func publication(f *facts) []Result {
	p := f.postgres
	if !p.publication {
		if p.create {
			return warn("invalidator setup", "%s does not exist; the invalidator tries to make it when it starts", f.publicationName)
		}
		return fail("invalidator setup --role "+p.user+" # as the owner of the tables", "%s does not exist, and role %s may not make one", f.publicationName, p.user)
	}
	if bad := f.findings(func(n invalidate.Finding) bool { return n.Subject == ident(f.publicationName) }); len(bad) > 0 {
		return bad
	}
	return pass("%s publishes every kind of change", f.publicationName)
}

func tables(f *facts) []Result {
	bad := f.findings(func(n invalidate.Finding) bool { return n.Subject != ident(f.publicationName) })
	if len(bad) > 0 {
		return bad
	}
	if !f.postgres.publication {
		return pass("all tables and columns of the rules exist, with the replica identity that they need")
	}
	return pass("all tables and columns of the rules are published, with the replica identity that they need")
}

// findings gives those of the catalog that a test picks, as results.
func (f *facts) findings(test func(invalidate.Finding) bool) (results []Result) {
	for _, n := range f.postgres.findings {
		if !test(n) {
			continue
		}
		r := Result{Status: Warn, Detail: n.Problem, Mend: n.SQL}
		if n.Severity == invalidate.Failure {
			r.Status = Fail
		}
		if n.Subject != ident(f.publicationName) {
			r.Check = "table " + n.Subject
		}
		if r.Mend == "" {
			r.Mend = "mend the rules (RULES_FILE), or migrate the schema"
		}
		results = append(results, r)
	}
	return results
}

func slotState(f *facts) []Result {
	p := f.postgres
	drop := fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", literal(f.slotName))
	switch s := p.slot; {
	case s == nil && (p.replication || p.superuser):
		return warn("invalidator setup", "%s does not exist; the invalidator makes it when it starts", f.slotName)
	case s == nil:
		return fail("invalidator setup --role "+p.user+" # as a role that may replicate", "%s does not exist, and role %s may not make one", f.slotName, p.user)
	case s.plugin == "":
		return fail("SLOT_NAME; or "+drop, "%s is a physical slot", f.slotName)
	case s.plugin != "pgoutput" || s.database != p.database:
		return fail("SLOT_NAME; or "+drop, "%s is a slot of plugin %s in database %s", f.slotName, s.plugin, s.database)
	case s.status == "lost":
		reason := ""
		if s.reason != "" {
			reason = " (" + s.reason + ")"
		}
		return fail(drop+" -- the invalidator makes it anew and deletes every cached key", "%s is invalid: the server has given up its WAL%s", f.slotName, reason)
	case s.status == "unreserved":
		return fail("start the invalidator at once; ALTER SYSTEM SET max_slot_wal_keep_size = '"+megabytes(2*p.keep)+"'; SELECT pg_reload_conf();",
			"%s is about to lose its WAL", f.slotName)
	case !s.active:
		return warn("start the invalidator; or `invalidator teardown`, if it is not to come back", "nobody holds %s, so the WAL that it keeps grows", f.slotName)
	}
	return heldSlot(f, p.slot)
}

// farBehind is a backlog that takes minutes.
const farBehind = 1 << 30

// heldSlot looks at a slot that somebody follows.
func heldSlot(f *facts, s *slot) []Result {
	holder := fmt.Sprintf("process %d", s.pid)
	if s.holder != "" {
		holder += " (" + s.holder + ")"
	}
	text := fmt.Sprintf("%s is held by %s, %s behind", f.slotName, holder, size(s.behind))
	switch {
	case f.valkeyErr == nil && f.beatsErr == nil && !f.beats && !strings.HasPrefix(s.holder, "walkey"):
		return fail(fmt.Sprintf("end that process: SELECT pg_terminate_backend(%d); or give the invalidator a slot of its own by SLOT_NAME", s.pid),
			"%s; it does not look like an invalidator, and there is no heartbeat", text)
	case s.behind >= farBehind:
		return warn("ask again: if it falls, wait, the invalidator catches up. If not, a commit hangs (SELECT pid, query FROM pg_stat_activity WHERE wait_event = 'SyncRep';"+
			" bring the synchronous standby back) or a transaction is open for long (SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start;)",
			"%s", text)
	}
	return pass("%s", text)
}

const (
	keepsPace = 16 << 20  // bytes behind, at which a slot that is held counts as keeping pace
	fillsDisk = 5 << 30   // bytes retained without limit, which will not go away by themselves; farBehind when nobody holds the slot
	soon      = time.Hour // what is left of the limit is worth a warning then
)

func retainedWAL(f *facts) []Result {
	p := f.postgres
	limit := "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf(); -- less than the disk has to spare"
	if p.slot == nil {
		if p.keep < 0 {
			return warn(limit, "max_slot_wal_keep_size is without limit: an invalidator that is away for long fills the server's disk")
		}
		return pass("no slot yet; the limit is %s", size(p.keep))
	}
	s := p.slot
	rate := fmt.Sprintf("WAL grows by %s/s", size(int64(p.growth)))
	if p.keep < 0 || s.safe == nil {
		if s.status == "lost" {
			return skip("the slot has no WAL any more")
		}
		detail := fmt.Sprintf("%s retained, %s; max_slot_wal_keep_size is without limit", size(s.retained), rate)
		if s.retained >= fillsDisk || s.retained >= farBehind && !s.active {
			return fail(limit+"; and start the invalidator, or `invalidator teardown`, if it is not to come back",
				"%s: Postgres stops when its disk is full", detail)
		}
		return warn(limit, "%s: an invalidator that is away for long fills the server's disk", detail)
	}
	if s.active && s.behind < keepsPace {
		return pass("%s of %s retained, %s, the invalidator keeps pace", size(s.retained), size(p.keep), rate)
	}
	mend := "start the invalidator, or find out what holds it up; ALTER SYSTEM SET max_slot_wal_keep_size = '" + megabytes(2*p.keep) + "'; SELECT pg_reload_conf();"
	left, known := timeLeft(*s.safe, p.growth)
	detail := fmt.Sprintf("%s of %s retained, %s", size(s.retained), size(p.keep), rate)
	switch {
	case *s.safe <= 0:
		return fail(mend, "%s: the limit is reached, the next checkpoint may invalidate the slot", detail)
	case known && left < soon:
		return warn(mend, "%s: the limit is reached in %s", detail, left.Round(time.Second))
	case s.retained > p.keep/2:
		return warn(mend, "%s: more than half of the limit", detail)
	case !known:
		return pass("%s: at this rate the limit is not reached", detail)
	}
	return pass("%s: at this rate the limit is reached in %s", detail, left.Round(time.Minute))
}

// timeLeft is how long safe bytes last at a rate; not known when nothing grows, or when it is a matter of years.
func timeLeft(safe int64, rate float64) (time.Duration, bool) {
	if rate <= 0 {
		return 0, false
	}
	seconds := float64(safe) / rate
	if seconds > (10 * 365 * 24 * time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

func idleTimeout(f *facts) []Result {
	p := f.postgres
	if p.version < 180000 {
		return skip("only Postgres 18 and later have it")
	}
	if p.idleTimeout > 0 {
		return warn("ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();",
			"an invalidator that is away for %s loses its slot, and every cached key with it", p.idleTimeout)
	}
	return pass("0: a slot lasts until it is dropped")
}

// maxSkew is a difference of clocks that makes latencies that are measured across machines worthless. Nothing else
// depends on them.
const maxSkew = time.Second

func postgresClock(f *facts) []Result { return clock(f.postgres.skew, f.postgres.skewErr, "Postgres") }

func clock(skew, uncertain time.Duration, server string) []Result {
	text := fmt.Sprintf("%s before this machine's (±%s)", skew.Round(100*time.Microsecond), uncertain.Round(100*time.Microsecond))
	if skew < 0 {
		text = strings.Replace(text, "before", "behind", 1)[1:] // without the sign
	}
	if max(skew, -skew)-uncertain > maxSkew {
		return warn("synchronise the clocks of both machines (chrony, systemd-timesyncd)", "the clock of %s is %s: measured latencies are off by that", server, text)
	}
	return pass("%s", text)
}

// size gives a number of bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 10<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	case bytes >= 10<<10:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d bytes", bytes)
}

// megabytes gives a number of bytes in the notation of Postgres' settings.
func megabytes(bytes int64) string { return fmt.Sprintf("%dMB", max(bytes>>20, 1024)) }
