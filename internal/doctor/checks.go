package doctor

import "fmt"

// What a check can be about: it is skipped when that could not be asked.
const (
	ofNothing = iota
	ofPostgres
	ofValkey
)

// check looks at the facts and finds one thing or more.
type check struct {
	name string
	of   int
	test func(*facts) []Result
}

// checks are all checks in the order in which they are shown.
var checks = []check{
	{"Postgres connection", ofNothing, postgresConnection},
	{"Postgres pooler", ofPostgres, pooler},
	{"Postgres TLS", ofPostgres, encryption},
	{"Postgres version", ofPostgres, postgresVersion},
	{"Postgres primary", ofPostgres, primary},
	{"wal_level", ofPostgres, walLevel},
	{"replication slots", ofPostgres, slotsLeft},
	{"WAL senders", ofPostgres, sendersLeft},
	{"role", ofPostgres, role},
	{"replication connection", ofPostgres, replicationConnection},
	{"pg_hba", ofPostgres, hostBasedAuthentication},
	{"publication", ofPostgres, publication},
	{"tables", ofPostgres, tables},
	{"slot", ofPostgres, slotState},
	{"retained WAL", ofPostgres, retainedWAL},
	{"idle_replication_slot_timeout", ofPostgres, idleTimeout},
	{"Postgres clock", ofPostgres, postgresClock},
	{"Valkey connection", ofNothing, valkeyConnection},
	{"Valkey version", ofValkey, valkeyVersion},
	{"Valkey primary", ofValkey, valkeyPrimary},
	{"maxmemory-policy", ofValkey, memoryPolicy},
	{"tracking table", ofValkey, trackingTable},
	{"Valkey ACL", ofValkey, valkeyACL},
	{"Valkey health", ofValkey, valkeyHealth},
	{"heartbeat", ofNothing, heartbeat},
	{"Valkey clock", ofValkey, valkeyClock},
}

func pass(format string, args ...any) []Result {
	return []Result{{Status: Pass, Detail: fmt.Sprintf(format, args...)}}
}

func skip(format string, args ...any) []Result {
	return []Result{{Status: Skip, Detail: fmt.Sprintf(format, args...)}}
}

func warn(mend, format string, args ...any) []Result {
	return []Result{{Status: Warn, Detail: fmt.Sprintf(format, args...), Mend: mend}}
}

func fail(mend, format string, args ...any) []Result {
	return []Result{{Status: Fail, Detail: fmt.Sprintf(format, args...), Mend: mend}}
}
