package invalidate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/cdc"
)

const namedRules = `
tables:
  public.materials:
    keys: [list, "material:{id}", "page:{id}:{lang}:{id}"]
    raw: ["other:1:m:{id}"]
    when: is_active
  public.editors:
    keys: ["material:{name}"]
    columns: [name]
`

func text(s string) *string { return &s }

func TestRowKeys(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, namedRules)
	materials := cdc.Table{Schema: "public", Name: "materials"}
	const isBool = 16
	for _, test := range []struct {
		name   string
		row    []RowColumn
		want   string
		counts bool
	}{
		{"everything is known", []RowColumn{{Name: "id", Value: text("7")}, {Name: "lang", Value: text("ru")}, {Name: "is_active", OID: isBool, Value: text("t")}}, "p:list p:material:7 p:page:7:ru:7 other:1:m:7", true},
		{"the condition does not hold", []RowColumn{{Name: "id", Value: text("7")}, {Name: "lang"}, {Name: "is_active", OID: isBool, Value: text("f")}}, "p:list p:material:7 p:page:7::7 other:1:m:7", false},
		{"only the key is known", []RowColumn{{Name: "id", Value: text("a*b")}}, `p:list p:material:a*b ~p:page:a\*b:*:a\*b other:1:m:a*b`, true},
		{"nothing is known", nil, `p:list ~p:material:* ~p:page:*:*:* ~other:1:m:*`, true},
	} {
		keys, counts := rules.RowKeys(materials, test.row)
		var got []string
		for _, k := range keys {
			if k.Key != "" {
				got = append(got, k.Key)
			} else {
				got = append(got, "~"+k.Pattern)
			}
		}
		if joined := strings.Join(got, " "); joined != test.want || counts != test.counts {
			t.Errorf("%s: %s, counts %t", test.name, joined, counts)
		}
	}
	if keys, _ := rules.RowKeys(cdc.Table{Schema: "public", Name: "strange"}, nil); keys != nil {
		t.Errorf("a table without a rule has keys %v", keys)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, namedRules)
	for key, want := range map[string][]string{
		"p:list":          {"public.materials list  is_active"},
		"p:material:7":    {"public.editors material:{name} name=7 ", "public.materials material:{id} id=7 is_active"},
		"p:page:7:ru:7":   {"public.materials page:{id}:{lang}:{id} id=7 lang=ru is_active"},
		"p:page:7:ru:8":   nil, // no row has two ids
		"p:page:7:a:b:7":  {"public.materials page:{id}:{lang}:{id} id=7 lang=a:b is_active"},
		"other:1:m:\n7":   {"public.materials other:1:m:{id} id=\n7 is_active"},
		"material:7":      nil, // without the prefix it is another key
		"p:materials":     nil,
		"p:list:no":       nil,
		"y:material:7":    nil,
		"p:session:token": nil,
	} {
		var got []string
		for _, o := range rules.Origins(key) {
			var row []string
			for _, c := range o.Row {
				row = append(row, c.Name+"="+*c.Value)
			}
			got = append(got, fmt.Sprintf("%s %s %s %s", o.Table, o.Template, strings.Join(row, " "), o.When))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	if o := rules.Origins("p:material:7")[0]; len(o.Changed) != 1 || o.Changed[0] != "name" {
		t.Errorf("%+v", o)
	}
	if keys, patterns, ok := rules.TableKeys(cdc.Table{Schema: "public", Name: "editors"}); !ok || len(keys) != 0 || len(patterns) != 1 || patterns[0] != `p:material:*` {
		t.Errorf("keys %v, patterns %v", keys, patterns)
	}
}
