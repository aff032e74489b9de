package program

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// Valkey is the group of options that say where Valkey is.
type Valkey struct {
	ValkeyHost     string `env:"VALKEY_HOST" default:"127.0.0.1" placeholder:"HOST" help:"Host of Valkey."`
	ValkeyPort     Port   `env:"VALKEY_PORT" default:"6379" placeholder:"PORT" help:"Port of Valkey."`
	ValkeyAddrs    string `name:"valkey-addrs" env:"VALKEY_ADDRS" placeholder:"HOST:PORT,..." help:"Some nodes of a Valkey Cluster, or the sentinels when VALKEY_SENTINEL_MASTER is set. Replaces host and port."`
	ValkeySentinel string `name:"valkey-sentinel-master" env:"VALKEY_SENTINEL_MASTER" placeholder:"NAME" help:"What the sentinels of VALKEY_ADDRS call the primary."`
	ValkeyUsername string `env:"VALKEY_USERNAME" placeholder:"NAME" help:"ACL user."`
	ValkeyPassword string `env:"VALKEY_PASSWORD" placeholder:"SECRET" help:"Password of the ACL user, or of the server."`
	ValkeyTLS      bool   `name:"valkey-tls" env:"VALKEY_TLS" help:"Connect to Valkey by TLS."`
	ValkeyCA       string `name:"valkey-ca" env:"VALKEY_CA" placeholder:"PEM" help:"Certificate authorities that may have signed Valkey's certificate: a PEM file, or its text. Default: those of the system."`
}

// Check reports addresses that can't be one Valkey, and what this version can't do.
func (o *Valkey) Check(p *Problems) {
	switch {
	case strings.Contains(o.ValkeyHost, "://"):
		p.Add("VALKEY_HOST", "%q is a URL, perhaps one that Kubernetes injects for a Service of that name; "+
			"give the host alone, and set enableServiceLinks: false on the pod", o.ValkeyHost)
	case strings.ContainsAny(o.ValkeyHost, " /@,"):
		p.Add("VALKEY_HOST", "%q is not a host; give one name or address, and the port in VALKEY_PORT", o.ValkeyHost)
	case strings.Count(o.ValkeyHost, ":") == 1:
		p.Add("VALKEY_HOST", "%q holds a port; give it in VALKEY_PORT", o.ValkeyHost)
	}
	for _, address := range o.addrs() {
		host, port, err := net.SplitHostPort(address)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 || strings.Contains(host, "/") {
			p.Add("VALKEY_ADDRS", "%q is not an address; give host:port, several separated by commas, an IPv6 address in brackets", address)
		}
	}
	if o.ValkeySentinel != "" && len(o.addrs()) == 0 {
		p.Add("VALKEY_SENTINEL_MASTER", "has no effect without the sentinels; give their addresses in VALKEY_ADDRS, or unset this")
	}
	if _, err := o.tlsConfig(); err != nil {
		p.Add("VALKEY_CA", "%v", err)
	}
}

// addrs are the addresses in VALKEY_ADDRS.
func (o *Valkey) addrs() (addresses []string) {
	for _, address := range strings.Split(o.ValkeyAddrs, ",") {
		if address = strings.TrimSpace(address); address != "" {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// tlsConfig is nil when Valkey is to be reached in plain text.
func (o *Valkey) tlsConfig() (*tls.Config, error) {
	if !o.ValkeyTLS {
		if o.ValkeyCA != "" {
			return nil, errors.New("has no effect without VALKEY_TLS=true; set that, or unset this")
		}
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.addrs()) == 0 { // else each certificate is that of the address
		config.ServerName = o.ValkeyHost
	}
	if o.ValkeyCA == "" {
		return config, nil
	}
	pem := []byte(o.ValkeyCA)
	if !strings.Contains(o.ValkeyCA, "-----BEGIN") {
		var err error
		if pem, err = os.ReadFile(o.ValkeyCA); err != nil {
			return nil, fmt.Errorf("neither PEM text nor a file that can be read: %w", err)
		}
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("holds no certificate; give a PEM file with CERTIFICATE blocks")
	}
	return config, nil
}
