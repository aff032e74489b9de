package e2e

import "testing"

// What the page middleware keeps is emptied by edits by hand like everything else.
func TestPagesAreFresh(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	apis := []*program{s.startAPI(), s.startAPI()}
	s.startInvalidator()
	const path = "/api/materials/types/"
	s.seed("one", "two")
	for _, edit := range []struct{ sql, want string }{
		{"insert into materials (title, material_type) values ('three', 'video')", `{"types":[{"material_type":"article","count":2},{"material_type":"video","count":1}]}`},
		{"update materials set material_type = 'video' where id = 1", `{"types":[{"material_type":"article","count":1},{"material_type":"video","count":2}]}`},
		{"update materials set is_active = false where id = 3", `{"types":[{"material_type":"article","count":1},{"material_type":"video","count":1}]}`},
		{"truncate materials", `{"types":[]}`},
	} {
		for _, api := range apis {
			api.waitHit(path)
		}
		s.psql(edit.sql)
		for _, api := range apis {
			api.waitFor(path, "the counts after "+edit.sql, func(a answer) bool { return a.Status == 200 && a.Body == edit.want+"\n" })
		}
	}
}
