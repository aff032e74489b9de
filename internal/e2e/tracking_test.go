package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// A Valkey that refuses CLIENT TRACKING costs the local copies and nothing else, and it is said.
func TestWithoutTracking(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.ask("ACL SETUSER managed on >secret ~* &* +@all -client|tracking -client|caching")
	as := []string{"VALKEY_USERNAME=managed", "VALKEY_PASSWORD=secret"}
	api := s.startAPI(as...)
	s.startInvalidator(as...)
	s.seed("one")
	api.waitFor(detailPath(1), "a hit of Valkey", func(a answer) bool { return a.Cache == "walkey; hit; detail=valkey" })
	for i := range 20 {
		title := fmt.Sprintf("title %d", i)
		s.psql("update materials set title = '" + title + "' where id = 1")
		api.waitFor(detailPath(1), "the new title", hasTitle(title))
	}
	for range 3 {
		if a := api.get(detailPath(1)); strings.Contains(a.Cache, "local") || strings.Contains(a.Cache, "bypass") {
			t.Errorf("%s", a)
		}
	}
	if ready := api.get("/readyz?verbose"); ready.Status != 200 || !strings.Contains(ready.Body, "CLIENT TRACKING is refused") || !strings.Contains(ready.Body, `"degraded"`) {
		t.Errorf("readiness: %s", ready)
	}
	if log := api.Log.String(); strings.Count(log, "refuses CLIENT TRACKING") != 1 {
		t.Errorf("the log says it %d times", strings.Count(log, "refuses CLIENT TRACKING"))
	}
}
