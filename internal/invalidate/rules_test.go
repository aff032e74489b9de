package invalidate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/cdc"
)

func mustParse(t *testing.T, source string) *Rules {
	t.Helper()
	rules, err := ParseRules([]byte(source), "p")
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestBuiltInRules(t *testing.T) {
	t.Parallel()
	rules, err := LoadRules("", "bloodofjesus")
	if err != nil {
		t.Fatal(err)
	}
	materials := cdc.Table{Schema: "public", Name: "materials"}
	editors := cdc.Table{Schema: "public", Name: "editors"}
	if diff := cmp.Diff([]cdc.Table{editors, materials}, rules.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"id"}, rules.Columns(materials)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"id", "language"}, rules.Columns(editors)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	keys, patterns := rules.Everything()
	if diff := cmp.Diff([]string{"bloodofjesus:materials_list_active", "bloodofjesus:page:materials"}, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bloodofjesus:material:*", "bloodofjesus:user_profile:lang:*:user_id:*"}, patterns); diff != "" {
		t.Errorf("patterns (-want +got):\n%s", diff)
	}
}

func TestRulesFileOfTheContract(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	source := `
tables:
  public.materials:
    keys: [materials_list_active, "material:{id}", "page:materials"]
  public.editors:
    keys: ["user_profile:lang:{language}:user_id:{id}"]
  main_material:
    raw: ["bloodofjesus:1:materials_list_active"]
    columns: [title, is_active]
    when: "is_active"
  '"Odd.Schema"."Ta""ble"':
    keys: ["odd[1]*:{A}"]
`
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := LoadRules(path, "p")
	if err != nil {
		t.Fatal(err)
	}
	wantTables := []cdc.Table{{Schema: "Odd.Schema", Name: `Ta"ble`}, {Schema: "public", Name: "editors"}, {Schema: "public", Name: "main_material"}, {Schema: "public", Name: "materials"}}
	if diff := cmp.Diff(wantTables, rules.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"is_active", "title"}, rules.Columns(cdc.Table{Schema: "public", Name: "main_material"})); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	keys, patterns := rules.Everything()
	if diff := cmp.Diff([]string{"bloodofjesus:1:materials_list_active", "p:materials_list_active", "p:page:materials"}, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"p:material:*", `p:odd\[1\]\*:*`, "p:user_profile:lang:*:user_id:*"}, patterns); diff != "" {
		t.Errorf("patterns (-want +got):\n%s", diff)
	}
	if rules.Columns(cdc.Table{Schema: "public", Name: "other"}) != nil {
		t.Error("a table without a rule is wanted")
	}
}

func TestRulesRefuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, source, want string }{
		{"nothing", "", "no tables"},
		{"unknown field", "tables: {a: {kees: [x]}}", "kees"},
		{"no keys", "tables: {a: {columns: [x]}}", "no keys"},
		{"open brace", "tables: {a: {keys: ['m:{id']}}", "{ without its }"},
		{"closing brace", "tables: {a: {keys: ['m:id}']}}", "} without its {"},
		{"nested brace", "tables: {a: {keys: ['m:{a{b}}']}}", "{ without its }"},
		{"empty column", "tables: {a: {keys: ['m:{}']}}", "names no column"},
		{"begins with a column", "tables: {a: {keys: ['{id}:x']}}", "fixed text"},
		{"raw begins with a column", "tables: {a: {raw: ['{id}:x']}}", "fixed text"},
		{"session", "tables: {a: {keys: ['session:{id}']}}", "session:"},
		{"own state", "tables: {a: {keys: ['walkey:{id}']}}", "walkey:"},
		{"session by its full name", "tables: {a: {raw: ['p:session:{id}']}}", "session:"},
		{"three parts", "tables: {a.b.c: {keys: [x]}}", "schema.table"},
		{"quote left open", `tables: {'"a.b': {keys: [x]}}`, "closing quote"},
		{"the same table twice", `tables: {a: {keys: [x]}, public.a: {keys: [y]}}`, "twice"},
		{"condition that does not parse", `tables: {a: {keys: [x], when: "is_active &&"}}`, "when"},
		{"condition without a column", `tables: {a: {keys: [x], when: "1 == 1"}}`, "names no column"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRules([]byte(c.source), "p")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestRulesReportEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := ParseRules([]byte("tables: {a: {keys: ['m:{id']}, b: {keys: ['session:x']}}"), "p")
	if err == nil || !strings.Contains(err.Error(), "table a") || !strings.Contains(err.Error(), "table b") {
		t.Errorf("error %v, want both tables named", err)
	}
}

func TestFingerprintChangesWithTheRules(t *testing.T) {
	t.Parallel()
	a := mustParse(t, "tables: {a: {keys: [x]}}")
	same := mustParse(t, "tables: {a: {keys: [x]}}")
	other := mustParse(t, "tables: {a: {keys: [y]}}")
	if a.fingerprint != same.fingerprint || a.fingerprint == other.fingerprint {
		t.Errorf("fingerprints %s, %s (same), %s (other)", a.fingerprint, same.fingerprint, other.fingerprint)
	}
}
