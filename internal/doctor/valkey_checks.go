package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

func valkeyConnection(f *facts) []Result {
	if f.valkeyErr == nil {
		text := "connected"
		if len(f.valkeys) > 1 {
			text = fmt.Sprintf("connected to %d primaries", len(f.valkeys))
		}
		if len(f.valkeys) > 0 && f.valkeys[0].User != "" {
			text += " as user " + f.valkeys[0].User
		}
		return pass("%s", text)
	}
	text := f.valkeyErr.Error()
	switch {
	case strings.Contains(text, "NOAUTH"), strings.Contains(text, "WRONGPASS"), strings.Contains(text, "AUTH"):
		return fail("VALKEY_USERNAME and VALKEY_PASSWORD (or VALKEY_PASSWORD_FILE)", "%s", text)
	case strings.Contains(text, "x509"), strings.Contains(text, "tls"):
		return fail("VALKEY_TLS and VALKEY_CA", "%s", text)
	}
	switch {
	case strings.Contains(text, "cluster support disabled"):
		return fail("unset VALKEY_ADDRS and name the server by VALKEY_HOST and VALKEY_PORT, or set VALKEY_SENTINEL_MASTER if these are sentinels",
			"VALKEY_ADDRS names servers that are no cluster: %s", text)
	case strings.Contains(text, "ask the sentinel"):
		return fail("let VALKEY_ADDRS name sentinels, and VALKEY_SENTINEL_MASTER the name by which they know the primary (SENTINEL MASTERS)", "%s", text)
	}
	return fail("start Valkey, or mend VALKEY_HOST and VALKEY_PORT, or VALKEY_ADDRS", "%s", text)
}

func valkeyVersion(f *facts) []Result {
	v := f.valkey
	if v.Version == "" {
		return skip("its user may not ask: see Valkey ACL")
	}
	major, _, _ := strings.Cut(v.Version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 7 {
		return fail("upgrade to Valkey 7.2 or later", "%s %s is too old", v.Product, v.Version)
	}
	if v.Product != "valkey" {
		return warn("use Valkey 7.2 or later", "%s %s; Walkey is tested with Valkey", v.Product, v.Version)
	}
	return pass("%s", v.Version)
}

func valkeyPrimary(f *facts) []Result {
	switch v := f.valkey; {
	case v.Cluster && v.Expected != "cluster":
		return fail("VALKEY_ADDRS=host:port,host:port in place of VALKEY_HOST, with some of the cluster's nodes", "this server is part of a cluster")
	case v.Role == "":
		return skip("its user may not ask: see Valkey ACL")
	case v.Role != "master":
		return fail("let VALKEY_HOST and VALKEY_PORT name the primary", "this server is a replica")
	case v.Expected == "cluster":
		return pass("each is a primary of the cluster")
	case v.Expected == "sentinel":
		return pass("the sentinels' primary")
	}
	return pass("this server is the primary")
}

const (
	roomy   = 80 // per cent of maxmemory below which there is room
	crowded = 80 // per cent of the tracking table above which it is crowded
)

func memoryPolicy(f *facts) []Result {
	v := f.valkey
	if v.Policy == "" {
		return skip("its user may not ask: see Valkey ACL")
	}
	if v.MaxMemory == 0 {
		return warn("maxmemory 1gb and maxmemory-policy volatile-lru in valkey.conf, or CONFIG SET; less than the machine has to spare",
			"maxmemory is without limit: %s used, and the system may kill Valkey when memory runs out", size(v.UsedMemory))
	}
	used := 100 * v.UsedMemory / v.MaxMemory
	text := fmt.Sprintf("%s, %s of %s used", v.Policy, size(v.UsedMemory), size(v.MaxMemory))
	const mend = "CONFIG SET maxmemory-policy volatile-lru; and in valkey.conf"
	switch {
	case strings.HasPrefix(v.Policy, "volatile-"):
		return pass("%s", text)
	case v.Policy == "noeviction" && used < roomy:
		return pass("%s", text)
	case v.Policy == "noeviction":
		return fail(mend+"; or more maxmemory", "%s: nothing can be stored once it is full", text)
	case used < roomy:
		return warn(mend, "%s: once it is full, sessions and Walkey's own state may be evicted", text)
	}
	return fail(mend+"; or more maxmemory", "%s: sessions and Walkey's own state may be evicted", text)
}

// sluggish is a round trip at which deletes take longer than what is worth a cache.
const sluggish = 50 * time.Millisecond

func valkeyHealth(f *facts) []Result {
	v := f.valkey
	if v.Version == "" {
		return skip("its user may not ask: see Valkey ACL")
	}
	trip := 2 * v.SkewErr
	text := fmt.Sprintf("answers in %s, %d clients, %d keys evicted", trip.Round(10*time.Microsecond), v.Clients, v.Evicted)
	if reads := v.Hits + v.Misses; reads > 0 {
		text += fmt.Sprintf(", %d %% of %d reads found their key", 100*v.Hits/reads, reads)
	}
	switch {
	case v.MaxClients > 0 && 10*v.Clients > 9*v.MaxClients:
		return warn(fmt.Sprintf("CONFIG SET maxclients %d; and in valkey.conf; or find out who keeps connections open (CLIENT LIST)", 2*v.MaxClients),
			"%s: nearly all of %d connections are taken", text, v.MaxClients)
	case trip > sluggish:
		return warn("bring Valkey nearer, or find out what keeps it busy (SLOWLOG GET, LATENCY DOCTOR)", "%s: every delete waits so long", text)
	}
	return pass("%s", text)
}

// heartbeat is the proof that readers go by.
func heartbeat(f *facts) []Result {
	const untrusted = "the heartbeat stands still, so api does not trust the cache and answers from Postgres"
	switch {
	case f.valkeyErr != nil:
		return skip("Valkey could not be asked")
	case f.beatsErr != nil:
		return skip("it could not be read: %v", f.beatsErr)
	case f.beats:
		return pass("it rises: cached values are trusted")
	case f.postgresErr == nil && f.postgres.slot != nil && f.postgres.slot.active:
		return fail("the invalidator's log says what it is at: catching up, deleting everything, waiting for Valkey; if another program holds the slot, see slot",
			"%s, although the slot is held", untrusted)
	}
	return warn("start the invalidator; its log says what it waits for", "%s: no invalidator follows the stream", untrusted)
}

func trackingTable(f *facts) []Result {
	v := f.valkey
	switch {
	case v.TrackedLimit < 0:
		return skip("%d keys are tracked; its user may not ask for the limit (CONFIG GET)", v.Tracked)
	case v.TrackedLimit > 0 && v.Tracked*100 > v.TrackedLimit*crowded:
		return warn(fmt.Sprintf("CONFIG SET tracking-table-max-keys %d; and in valkey.conf", 4*v.TrackedLimit),
			"%d of %d keys are tracked: beyond that, local copies are thrown away at random", v.Tracked, v.TrackedLimit)
	case v.TrackedLimit == 0:
		return pass("%d keys are tracked, without limit", v.Tracked)
	}
	return pass("%d of %d keys are tracked", v.Tracked, v.TrackedLimit)
}

func valkeyACL(f *facts) []Result {
	v := f.valkey
	switch own := v.User != "" && v.User != "default"; {
	case v.Looks:
		return skip("this user looks into keys and can't run a program: ask as the invalidator's and as api's user what each of them may do")
	case len(v.Denied) > 0:
		return fail(grant(v.User, v.Denied), "not allowed: %s", strings.Join(v.Denied, ", "))
	case len(v.DeniedWithdraw) > 0:
		return warn(grant(v.User, v.DeniedWithdraw), "not allowed: %s; so values stay until readers can see their change, about a tenth of a millisecond longer",
			strings.Join(v.DeniedWithdraw, ", "))
	case len(v.DeniedReader) == 0:
		return pass("every command that Walkey needs, on every key of the rules")
	case own:
		return pass("every command that the invalidator needs, on every key of the rules; api needs another user, who may %s", strings.Join(v.DeniedReader, ", "))
	case !slices.ContainsFunc(v.DeniedReader, func(what string) bool { return !strings.HasPrefix(what, "CLIENT ") }):
		return warn(grant(v.User, v.DeniedReader), "not allowed: %s; so api keeps no local copies, and each hit asks Valkey", strings.Join(v.DeniedReader, ", "))
	}
	return warn(grant(v.User, v.DeniedReader)+"; or another user for api", "not allowed to api: %s", strings.Join(v.DeniedReader, ", "))
}

// grant is what lets a user do what was denied.
func grant(user string, denied []string) string {
	if user == "" {
		user = "USER"
	}
	var grants []string
	for _, what := range denied {
		if key, isKey := strings.CutPrefix(what, "key "); isKey {
			grants = append(grants, "'~"+key+"'")
			continue
		}
		grants = append(grants, "+"+strings.ToLower(strings.ReplaceAll(what, " ", "|")))
	}
	return fmt.Sprintf("ACL SETUSER %s %s; then ACL SAVE or CONFIG REWRITE", user, strings.Join(grants, " "))
}

func valkeyClock(f *facts) []Result {
	if f.valkey.SkewErr == 0 {
		return skip("its user may not ask: see Valkey ACL")
	}
	return clock(f.valkey.Skew, f.valkey.SkewErr, "Valkey")
}
