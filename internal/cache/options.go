package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Options says where Valkey is and how values are kept. An Eraser uses the connection and Prefix alone.
type Options struct {
	Host string // Valkey's host
	Port int
	// Addrs replaces Host and Port: some nodes of a Valkey Cluster, host:port, or with SentinelMaster some sentinels.
	Addrs          []string
	SentinelMaster string // what the sentinels call the primary
	Username       string // ACL user; empty is Valkey's default user
	Password       string
	TLS            *tls.Config // nil is plain TCP

	Prefix       string        // the first part of every key: PREFIX:key
	DefaultTTL   time.Duration // the meaning of Default; 300 s when zero
	Compression  string        // CodingZlib, CodingZstd, CodingGzip or CodingNone; empty is CodingZlib
	MaxStaleness time.Duration // no answer from the cache is older; 5 s when zero, and not below 1 s
	LocalBytes   int           // bound of what is kept in this process' memory; 128 MiB when zero
	Loads        int           // how many loads call their source at the same time; 16 when zero
	LoadQueue    int           // how many more may wait for that; 1,000 when zero
	Logger       *zap.Logger   // nil logs nothing
	AuditRate    int           // one in so many hits is loaded again and compared; none when zero
	// Position is the end of the source's WAL: every change that a load before the call can have seen is before it. An audit needs it.
	Position func(context.Context) (uint64, error)
	// Copies says that loaders may read from copies of the source, which may show a change before the source itself does.
	Copies bool
	// OnLoad is told how long each call of a loader took, by whoever waited for it. It must not block. nil: nobody is.
	OnLoad   func(took time.Duration)
	Switches Switches
}

// Switches turn off single mechanisms of the protocol, so that a test can show what goes wrong without them.
// They are for tests alone: with any of them on, old values are served.
type Switches struct {
	NoTokenPerLoad bool // one lease token for the whole process, so that its late loads are stored
	NoHeartbeat    bool // trust without proof
	NoReplay       bool // believe a new primary to have every delete that the former one acknowledged
}

// Of LocalBytes, copies of Valkey's values take a half, and the rest is shared as follows.
const (
	copiesShare   = 2 // copies of what Valkey holds
	keptShare     = 4 // what was loaded while nothing is trusted
	decodedShare  = 8 // bodies whose coding a client does not take
	landingsShare = 8 // what keeps answers in order
)

const (
	defaultTTL          = 300 * time.Second
	defaultMaxStaleness = 5 * time.Second
	minMaxStaleness     = time.Second
	defaultLocalBytes   = 128 << 20
	defaultLoads        = 16
	defaultLoadQueue    = 1000
)

// complete fills in what was left out, or says everything that is wrong.
func (o Options) complete() (Options, error) {
	if o.DefaultTTL == 0 {
		o.DefaultTTL = defaultTTL
	}
	if o.Compression == "" {
		o.Compression = CodingZlib
	}
	if o.MaxStaleness == 0 {
		o.MaxStaleness = defaultMaxStaleness
	}
	if o.LocalBytes == 0 {
		o.LocalBytes = defaultLocalBytes
	}
	if o.Loads == 0 {
		o.Loads = defaultLoads
	}
	if o.LoadQueue == 0 {
		o.LoadQueue = defaultLoadQueue
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	var wrong []error
	for _, address := range o.Addrs {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			wrong = append(wrong, fmt.Errorf("the address %q of Valkey is not host:port", address))
		}
	}
	if o.SentinelMaster != "" && len(o.Addrs) == 0 {
		wrong = append(wrong, fmt.Errorf("no address of a sentinel is given that knows %q", o.SentinelMaster))
	}
	if len(o.Addrs) == 0 && o.Host == "" {
		wrong = append(wrong, errors.New("the host of Valkey is empty"))
	}
	if len(o.Addrs) == 0 && (o.Port < 1 || o.Port > 65535) {
		wrong = append(wrong, fmt.Errorf("the port of Valkey is %d, not one of 1 to 65535", o.Port))
	}
	if o.kind() == inCluster && strings.ContainsAny(o.Prefix, "{}") {
		wrong = append(wrong, fmt.Errorf("the key prefix %q has braces: in a cluster all keys would lie in one slot", o.Prefix))
	}
	if o.Prefix == "" || strings.ContainsAny(o.Prefix, " \r\n") {
		wrong = append(wrong, fmt.Errorf("the key prefix %q is empty or has blanks", o.Prefix))
	}
	if o.DefaultTTL < time.Millisecond {
		wrong = append(wrong, fmt.Errorf("the default TTL %s is below a millisecond", o.DefaultTTL))
	}
	if _, err := codingNumber(o.Compression); err != nil {
		wrong = append(wrong, err)
	}
	if o.MaxStaleness < minMaxStaleness {
		wrong = append(wrong, fmt.Errorf("the greatest staleness %s is below %s", o.MaxStaleness, minMaxStaleness))
	}
	if o.LocalBytes < 1<<20 {
		wrong = append(wrong, fmt.Errorf("%d bytes for local copies are less than 1 MiB", o.LocalBytes))
	}
	if o.AuditRate < 0 || o.AuditRate > 0 && o.Position == nil {
		wrong = append(wrong, fmt.Errorf("an audit of one in %d hits needs a rate of at least 1 and a position", o.AuditRate))
	}
	if o.Loads < 1 || o.LoadQueue < 1 {
		wrong = append(wrong, fmt.Errorf("%d loads at once and %d that wait: neither may be below 1", o.Loads, o.LoadQueue))
	}
	return o, errors.Join(wrong...)
}

// kind says how Valkey is put together.
func (o Options) kind() kind {
	switch {
	case len(o.Addrs) == 0:
		return oneServer
	case o.SentinelMaster != "":
		return bySentinel
	}
	return inCluster
}

// addresses are those that are known beforehand.
func (o Options) addresses() []string {
	if len(o.Addrs) == 0 {
		return []string{net.JoinHostPort(o.Host, strconv.Itoa(o.Port))}
	}
	return o.Addrs
}
