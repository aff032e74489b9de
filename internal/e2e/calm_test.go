package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const listPath = "/api/materials/"

func detailPath(id int) string { return fmt.Sprintf("/api/materials/%d/", id) }

// seed puts in materials named by their titles, with ids from 1 on.
func (s *servers) seed(titles ...string) {
	s.t.Helper()
	for _, title := range titles {
		s.psql("insert into materials (title, material_type) values ('" + title + "', 'article')")
	}
}

// hasTitle reports whether the answer is a 200 that holds the title.
func hasTitle(title string) func(answer) bool {
	return func(a answer) bool { return a.Status == 200 && slices.Contains(a.titles(), title) }
}

func lacksTitle(title string) func(answer) bool {
	return func(a answer) bool { return a.Status == 200 && !slices.Contains(a.titles(), title) }
}

func hasStatus(status int) func(answer) bool {
	return func(a answer) bool { return a.Status == status }
}

// Every kind of edit by hand is seen through the list, its variants and the detail, although all of them were being
// served from memory.
func TestEditsByHandAreFresh(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	s.startInvalidator()
	s.seed("one", "two", "three")
	typed := listPath + "?type=article"
	warm := func() {
		t.Helper()
		for _, path := range []string{listPath, typed, detailPath(1), detailPath(2), detailPath(3), detailPath(4)} {
			api.waitHit(path)
		}
	}
	for _, edit := range []struct {
		name, sql string
		path      string
		what      string
		want      func(answer) bool
	}{
		{"UPDATE, list", "update materials set title = 'uno' where id = 1", listPath, "the new title", hasTitle("uno")},
		{"UPDATE, variant", "update materials set title = 'eins' where id = 1", typed, "the new title", hasTitle("eins")},
		{"UPDATE, detail", "update materials set title = 'un' where id = 1", detailPath(1), "the new title", hasTitle("un")},
		{"INSERT ends a cached 404", "insert into materials (id, title) overriding system value values (4, 'four')", detailPath(4), "the new row", hasTitle("four")},
		{"INSERT, list", "insert into materials (id, title) overriding system value values (5, 'five')", listPath, "the new row", hasTitle("five")},
		{"DELETE, detail", "delete from materials where id = 4", detailPath(4), "404", hasStatus(404)},
		{"DELETE, list", "delete from materials where id = 5", listPath, "a list without it", lacksTitle("five")},
		{"changed primary key, new", "update materials set id = 4 where id = 2", detailPath(4), "the row", hasTitle("two")},
		{"changed primary key, old", "update materials set id = 2 where id = 4", detailPath(4), "404", hasStatus(404)},
		{"deactivation, detail", "update materials set is_active = false where id = 3", detailPath(3), "404", hasStatus(404)},
		{"activation, list", "update materials set is_active = true where id = 3", listPath, "the row", hasTitle("three")},
		{"deactivation, list", "update materials set is_active = false where id = 3", listPath, "a list without it", lacksTitle("three")},
		{"several in one transaction", "begin; update materials set title = 'a' where id = 1; update materials set title = 'b' where id = 2; commit", detailPath(2), "the new title", hasTitle("b")},
		{"a savepoint that was kept", "begin; savepoint a; update materials set title = 'kept' where id = 1; release a; commit", detailPath(1), "the new title", hasTitle("kept")},
		{"COPY", "copy materials (id, title) from program 'echo 9,nine' with (format csv)", listPath, "the new row", hasTitle("nine")},
		{"TRUNCATE, detail", "truncate materials", detailPath(1), "404", hasStatus(404)},
		{"TRUNCATE, list", "insert into materials (id, title) overriding system value values (1, 'last'); truncate materials restart identity cascade", listPath, "an empty list", func(a answer) bool { return a.Status == 200 && len(a.titles()) == 0 }},
	} {
		warm()
		s.psql(edit.sql)
		a := api.waitFor(edit.path, edit.what+" after "+edit.name, edit.want)
		if strings.HasPrefix(a.Cache, "walkey; fwd=bypass") {
			t.Errorf("%s: answered past the cache: %s", edit.name, a)
		}
	}
}

// What was rolled back deletes nothing: the entries stay where they are.
func TestRollbacksDeleteNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.seed("one", "two")
	api.waitHit(detailPath(1))
	api.waitHit(detailPath(2))
	eventually(t, "the inserts are deleted", func() error {
		if n := invalidator.metric("walkey_transactions_total"); n != 2 {
			return fmt.Errorf("%v transactions", n)
		}
		return nil
	})
	deleted := invalidator.metric("walkey_deleted_keys_total")

	s.psql("begin; update materials set title = 'gone'; delete from materials; rollback")
	s.psql("begin; savepoint a; update materials set title = 'gone'; truncate materials; rollback to a; commit")
	s.psql("begin; savepoint a; update materials set title = 'gone' where id = 1; rollback to a; update materials set title = 'zwei' where id = 2; commit")

	api.waitFor(detailPath(2), "the one change that was committed", hasTitle("zwei"))
	if got := api.get(detailPath(1)); got.Cache != "walkey; hit; detail=local" || !hasTitle("one")(got) {
		t.Errorf("the entry that no committed change touched: %s", got)
	}
	// materials_list_active, page:materials and material:2, once each.
	if n := invalidator.metric("walkey_deleted_keys_total") - deleted; n != 3 {
		t.Errorf("%v keys deleted, want 3", n)
	}
}

// Two programs that were there before their servers begin to work when those come.
func TestProgramsWaitForTheirServers(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	if err := s.postgres.Shutdown(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	if err := s.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	api := s.launch("api", []string{"API_ADMIN_ADDR=127.0.0.1:0"})
	invalidator := s.launch("invalidator", nil)
	for _, p := range []*program{api, invalidator} {
		eventually(t, p.Name+" answers healthz", func() error {
			response, err := client.Get(p.Base + "/healthz")
			if err != nil {
				return err
			}
			return response.Body.Close()
		})
		if p.ready() == nil {
			t.Errorf("%s is ready without Postgres", p.Name)
		}
	}
	if err := s.postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "api is ready without Valkey", api.ready)
	s.seed("one")
	if a := api.get(detailPath(1)); a.Status != 200 || a.Cache != "walkey; fwd=bypass; detail=valkey-down" {
		t.Errorf("without Valkey: %s", a)
	}
	if err := s.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "invalidator is ready", invalidator.ready)
	api.waitHit(detailPath(1))
	s.psql("update materials set title = 'uno'")
	api.waitFor(detailPath(1), "the new title", hasTitle("uno"))
}

// A conditional request is answered from the same entry.
func TestETagChangesWithTheRow(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	s.startInvalidator()
	s.seed("one")
	before := api.waitHit(detailPath(1))
	again := api.get(detailPath(1))
	s.psql("update materials set title = 'uno'")
	after := api.waitFor(detailPath(1), "the new title", hasTitle("uno"))
	if before.ETag == "" || before.ETag != again.ETag || before.ETag == after.ETag {
		t.Errorf("ETags: %s, the same row again %s, after the change %s", before.ETag, again.ETag, after.ETag)
	}
	if diff := cmp.Diff([]string{"uno"}, after.titles()); diff != "" {
		t.Errorf("titles (-want +got):\n%s", diff)
	}
}
