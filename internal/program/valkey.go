package program

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Valkey is the group of options that name one Valkey server.
type Valkey struct {
	ValkeyHost     string `env:"VALKEY_HOST" default:"127.0.0.1" placeholder:"HOST" help:"Host of Valkey."`
	ValkeyPort     Port   `env:"VALKEY_PORT" default:"6379" placeholder:"PORT" help:"Port of Valkey."`
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
	for _, variable := range []string{"VALKEY_ADDRS", "VALKEY_SENTINEL_MASTER"} {
		if _, found := p.Lookup(variable); found {
			p.Add(variable, "this version does not support a Valkey Cluster or Sentinel; unset it, and name one server by VALKEY_HOST and VALKEY_PORT")
		}
	}
	if _, err := o.tlsConfig(); err != nil {
		p.Add("VALKEY_CA", "%v", err)
	}
}

// tlsConfig is nil when Valkey is to be reached in plain text.
func (o *Valkey) tlsConfig() (*tls.Config, error) {
	if !o.ValkeyTLS {
		if o.ValkeyCA != "" {
			return nil, errors.New("has no effect without VALKEY_TLS=true; set that, or unset this")
		}
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ValkeyHost}
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
