package main

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	core "k8s.io/api/core/v1"

	"walkey/internal/freeport"
)

// client asks programs that end with the test, so no connection is kept.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks a port of the container.
func (c *confined) get(port, path string) error {
	response, err := client.Get("http://" + freeport.Host + ":" + strconv.Itoa(c.ports[port]) + path)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s on port %s: %s", path, port, response.Status)
	}
	return nil
}

// answers asks every port, and every probe.
func (c *confined) answers() {
	c.t.Helper()
	asked := map[string]bool{}
	for name, probe := range map[string]*core.Probe{"startup": c.container.StartupProbe, "liveness": c.container.LivenessProbe, "readiness": c.container.ReadinessProbe} {
		get := probe.HTTPGet
		asked[get.Port.StrVal] = true
		if err := c.get(get.Port.StrVal, get.Path); err != nil {
			c.t.Errorf("%s, %s probe: %v", c.name, name, err)
		}
	}
	metrics := "http"
	if c.ports["admin"] != 0 {
		metrics = "admin"
	}
	asked[metrics] = true
	if err := c.get(metrics, "/metrics"); err != nil {
		c.t.Errorf("%s, metrics: %v", c.name, err)
	}
	for name := range c.ports {
		if !asked[name] {
			c.t.Errorf("%s: nobody has asked port %s", c.name, name)
		}
	}
}

// status reads a field of /proc/PID/status.
func (c *confined) status(field string) string {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		c.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(\S+)`).FindStringSubmatch(string(text))
	if m == nil {
		c.t.Fatalf("/proc/%d/status has no %s", c.pid, field)
	}
	return m[1]
}

// isConfined asks the kernel whether the process is what the manifest says.
func (c *confined) isConfined() {
	t := c.t
	t.Helper()
	want := map[string]string{"Uid": "65532", "Gid": "65532", "CapEff": strings.Repeat("0", 16), "CapPrm": strings.Repeat("0", 16)}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	if c.inRunc {
		want["CapBnd"], want["NoNewPrivs"] = strings.Repeat("0", 16), "1"
		if !regexp.MustCompile(`(?m)^\d+ \d+ \S+ \S+ / ro[, ]`).Match(mounts) {
			t.Errorf("%s: its root can be written to:\n%s", c.name, mounts)
		}
	}
	for field, value := range want {
		if got := c.status(field); got != value {
			t.Errorf("%s: %s is %s, want %s", c.name, field, got, value)
		}
	}
}

// memory is what the process has in memory, in bytes.
func (c *confined) memory() int64 {
	c.t.Helper()
	n, err := strconv.ParseInt(c.status("VmRSS"), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n << 10
}
