package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configMap is a folder as the kubelet mounts a ConfigMap: what it shows are links, and an update swaps one of them.
type configMap struct {
	t   *testing.T
	dir string
}

func newConfigMap(t *testing.T, content string) *configMap {
	t.Helper()
	c := &configMap{t, t.TempDir()}
	c.update(content)
	if err := os.Symlink(filepath.Join("..data", "rules.yaml"), c.path()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *configMap) path() string { return filepath.Join(c.dir, "rules.yaml") }

func (c *configMap) update(content string) {
	c.t.Helper()
	folder, err := os.MkdirTemp(c.dir, "..")
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "rules.yaml"), []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	link := filepath.Join(c.dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(folder), link); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(c.dir, "..data")); err != nil {
		c.t.Fatal(err)
	}
}

const (
	detailOnly = `tables: {public.materials: {keys: ["material:{id}"]}}`
	withLists  = `tables: {public.materials: {keys: ["material:{id}", materials_list_active]}}`
)

// New rules come into force while the invalidators run, and take what was cached under the former ones along; mistaken ones
// change nothing.
func TestRulesFileIsReloaded(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	rules := newConfigMap(t, detailOnly)
	api := s.startAPI()
	env := "RULES_FILE=" + rules.path()
	first := s.startInvalidator(env)
	eventually(t, "the first is active", func() error { return active(first) })
	second := s.startInvalidator(env)
	both := []*program{first, second}
	s.seed("one")
	api.waitHit(detailPath(1))
	api.waitHit(listPath)
	s.psql("update materials set title = 'two'")
	api.waitFor(detailPath(1), "the second title", hasTitle("two"))
	if a := api.get(listPath); !hasTitle("one")(a) {
		t.Fatalf("the list, which no rule names: %s", a)
	}

	rules.update(`tables: {public.materials: {keys: ["session:{id}"], collumns: [title]}}`)
	for _, p := range both {
		eventually(t, "the mistake is shown", func() error {
			if p.metric("walkey_rules_refused") != 1 {
				return errors.New("it is not")
			}
			return nil
		})
		if log := p.Log.String(); strings.Count(log, "the rules remain those from before") != 1 || !strings.Contains(log, "collumns") {
			t.Errorf("the log does not say once what is wrong:\n%s", log)
		}
	}
	s.psql("update materials set title = 'three'")
	api.waitFor(detailPath(1), "the third title", hasTitle("three"))
	if a := api.get(listPath); !hasTitle("one")(a) {
		t.Fatalf("the list, which no rule names: %s", a)
	}

	rules.update(withLists)
	api.waitFor(listPath, "the third title", hasTitle("three"))
	api.waitHit(listPath)
	s.psql("update materials set title = 'four'")
	api.waitFor(listPath, "the fourth title", hasTitle("four"))
	for _, p := range both {
		eventually(t, "the new rules are taken", func() error {
			if p.metric("walkey_rules_refused") != 0 || p.metric("walkey_rules_reloads_total") != 2 {
				return errors.New("they are not")
			}
			return p.ready()
		})
	}
	if first.metric("walkey_resyncs_total")+second.metric("walkey_resyncs_total") < 2 { // the slot was new, and the rules
		t.Error("the rules changed without a resynchronisation")
	}
}
