package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const editorPassword = "correct horse"

// editor is somebody's session, which any api of the stack knows.
type editor struct {
	s      *stack
	cookie string
}

// addEditor adds an editor by the program's own command.
func (s *stack) addEditor(name string) {
	s.t.Helper()
	command := exec.Command(filepath.Join(programs, "api"), "user", "add", name)
	command.Env = append(os.Environ(), "DATABASE_URL="+s.url)
	command.Stdin = strings.NewReader(editorPassword + "\n")
	if out, err := command.CombinedOutput(); err != nil {
		s.t.Fatalf("add an editor: %v\n%s", err, out)
	}
}

func (s *stack) login(at *program, name string) editor {
	s.t.Helper()
	body := fmt.Sprintf(`{"username":%q,"password":%q}`, name, editorPassword)
	status, header, text, err := editor{s: s}.do(at, http.MethodPost, "/api/session/", body)
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("login: %d %s, %v", status, text, err)
	}
	cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
	return editor{s, cookie}
}

func (e editor) do(at *program, method, path, body string) (status int, header http.Header, text string, err error) {
	request, err := http.NewRequestWithContext(e.s.t.Context(), method, at.base+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if e.cookie != "" {
		request.Header.Set("Cookie", e.cookie)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, "", err
	}
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(content), errors.Join(err, response.Body.Close())
}

// A DBA ends an editor's access on every process, although each had the profile in its memory.
func TestEditorDeactivatedByHand(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	apis := []*program{s.startAPI(), s.startAPI()}
	s.startInvalidator()
	s.addEditor("ada")
	ada := s.login(apis[0], "ada")
	for _, api := range apis {
		eventually(t, "the profile is in memory", func() error {
			status, header, text, err := ada.do(api, http.MethodGet, "/api/session/", "")
			if got := header.Get("Cache-Status"); err == nil && (status != http.StatusOK || got != "walkey; hit; detail=local") {
				return fmt.Errorf("%d %s [%s]", status, text, got)
			}
			return err
		})
	}
	s.psql("update editors set is_active = false where username = 'ada'")
	for _, api := range apis {
		// Writes ask the table: not one gets through.
		if status, _, text, err := ada.do(api, http.MethodPost, listPath, `{"title":"x"}`); err != nil || status != http.StatusUnauthorized {
			t.Errorf("write after the commit: %d %s, %v", status, text, err)
		}
		eventually(t, "access has ended", func() error {
			status, _, text, err := ada.do(api, http.MethodGet, "/api/session/", "")
			if err == nil && status != http.StatusUnauthorized {
				return fmt.Errorf("%d %s", status, text)
			}
			return err
		})
	}
	s.psql("update editors set is_active = true where username = 'ada'")
	for _, api := range apis {
		if status, _, _, err := ada.do(api, http.MethodGet, "/api/session/", ""); err != nil || status != http.StatusUnauthorized {
			t.Errorf("a session that has ended came back: %d, %v", status, err)
		}
	}
}

// Editors see each of their own edits at once, on any process; everybody else does a moment later.
func TestEditorsSeeTheirOwnEdits(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	apis := []*program{s.startAPI(), s.startAPI()}
	s.startInvalidator()
	s.seed("one", "two", "three", "four")
	s.addEditor("ada")
	for _, api := range apis {
		api.waitHit(listPath)
	}
	var all sync.WaitGroup
	for id := 1; id <= 4; id++ {
		all.Go(func() {
			ada := s.login(apis[0], "ada")
			for n := range 15 {
				title := fmt.Sprintf("edit %d of %d", n, id)
				if status, _, text, err := ada.do(apis[n%2], http.MethodPatch, detailPath(id), `{"title":"`+title+`"}`); err != nil || status != http.StatusOK {
					t.Errorf("write: %d %s, %v", status, text, err)
					return
				}
				for i, path := range []string{listPath, detailPath(id), listPath + "?type=article"} {
					status, header, text, err := ada.do(apis[(n+i)%2], http.MethodGet, path, "")
					if err != nil || status != http.StatusOK || !strings.Contains(text, title) {
						t.Errorf("%s lacks %q: %d [%s] %s, %v", path, title, status, header.Get("Cache-Status"), text, err)
					}
				}
			}
		})
	}
	all.Wait()
	for _, api := range apis {
		for id := 1; id <= 4; id++ {
			api.waitFor(detailPath(id), "the last edit", hasTitle(fmt.Sprintf("edit 14 of %d", id)))
		}
		api.waitHit(listPath)
	}
}

// A gap empties the cache, and logs nobody out.
func TestSessionsOutliveAResynchronisation(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.seed("one")
	s.addEditor("ada")
	ada := s.login(api, "ada")
	api.waitHit(detailPath(1))
	invalidator.stop()
	s.psql("select pg_drop_replication_slot('walkey')")
	s.psql("update materials set title = 'missed'")
	s.startInvalidator()
	api.waitFor(detailPath(1), "what nobody streamed", hasTitle("missed"))
	status, header, text, err := ada.do(api, http.MethodGet, "/api/session/", "")
	var who struct{ Username string }
	if json.Unmarshal([]byte(text), &who) != nil || status != http.StatusOK || who.Username != "ada" || err != nil {
		t.Errorf("%d %s %v, %v", status, text, header, err)
	}
}
