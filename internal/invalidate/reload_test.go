package invalidate

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap/zaptest"
)

// What becomes of each content that a rules file takes in turn.
func TestRulesFileLooks(t *testing.T) {
	t.Parallel()
	const first, second = `tables: {t: {keys: ["t:{id}"]}}`, `tables: {t: {keys: ["t:{id}", list]}}`
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	present, err := LoadRules(path, "p")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics()
	f := NewRulesFile(path, "p", present, m, zaptest.NewLogger(t))
	reloads := func(result string) int { return int(values(t, m.reloads)["walkey_rules_reloads_total "+result]) }
	for _, step := range []struct {
		name           string
		change         func()
		fresh, refused bool
		taken, mistake int
	}{
		{"as it was read", func() {}, false, false, 0, 0},
		{"the same with a comment", func() { write("# why\n" + first) }, false, false, 0, 0},
		{"mistaken", func() { write("tables: {t: {kees: [a]}}") }, false, true, 0, 1},
		{"mistaken still", func() {}, false, true, 0, 1},
		{"empty", func() { write("") }, false, true, 0, 2},
		{"other rules", func() { write(second) }, true, false, 1, 2},
		{"gone", func() { _ = os.Remove(path) }, false, true, 1, 3},
		{"gone still", func() {}, false, true, 1, 3},
		{"back as it was", func() { write(second) }, false, false, 1, 3},
		{"the first again", func() { write(first) }, true, false, 2, 3},
	} {
		step.change()
		f.look()
		var got *Rules
		select {
		case got = <-f.Next():
		default:
		}
		if (got != nil) != step.fresh || m.refused.Load() != step.refused || reloads("taken") != step.taken || reloads("refused") != step.mistake {
			t.Errorf("%s: new rules %v, refused %v; %d taken, %d mistakes", step.name, got != nil, m.refused.Load(), reloads("taken"), reloads("refused"))
		}
	}
	// Who comes late gets the newest.
	write(second)
	f.look()
	write(first)
	f.look()
	if got := <-f.Next(); got.fingerprint != present.fingerprint {
		t.Error("rules that are no longer in the file were handed out")
	}
}
