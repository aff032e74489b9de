package invalidate

import (
	"testing"

	"walkey/internal/cdc"
)

// The glance sees everything that was visible when the position was taken, and what came since, whatever isolation the
// database has by default.
func TestGlanceIsAfterThePosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("do $$ begin execute format('alter database %I set default_transaction_isolation = serializable', current_database()); end $$")
	p, err := connectPrimary(t.Context(), b.invalidatorURL())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(t.Context())
	var version int
	if err := b.conn.QueryRow(t.Context(), "select current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatal(err)
	}
	q, err := newQuestion(t.Context(), p, version, []cdc.Table{{Schema: "public", Name: "t"}}, "walkey")
	if err != nil {
		t.Fatal(err)
	}
	position, before, err := q.ask(t.Context())
	if err != nil || position == 0 || before == "" {
		t.Fatalf("%s, %q, %v", position, before, err)
	}

	// In place of the position comes one that waits, and the catalog changes meanwhile.
	pg := p.conn.PgConn()
	if _, err := p.conn.Exec(t.Context(), "deallocate "+positionStatement); err != nil {
		t.Fatal(err)
	}
	if _, err := pg.Prepare(t.Context(), positionStatement, "select '0/10' from pg_advisory_lock(17)", nil); err != nil {
		t.Fatal(err)
	}
	b.exec("select pg_advisory_lock(17)")
	type answer struct {
		insert cdc.LSN
		glance string
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		a.insert, a.glance, a.err = q.ask(t.Context())
		answers <- a
	}()
	b.eventually("the first statement waits", func() bool {
		var waits bool
		err := b.conn.QueryRow(t.Context(), "select exists (select from pg_locks where locktype = 'advisory' and objid = 17 and not granted)").Scan(&waits)
		return err == nil && waits
	})
	b.exec("alter table t add column later text default 'x'")
	b.exec("select pg_advisory_unlock(17)")
	during := <-answers
	if during.err != nil || during.insert != 16 {
		t.Fatalf("%s, %v", during.insert, during.err)
	}
	_, after, err := q.ask(t.Context()) // the lock is this connection's already
	if err != nil {
		t.Fatal(err)
	}
	if during.glance == before || during.glance != after {
		t.Errorf("the glance was %s; before the change %s, after it %s", during.glance, before, after)
	}
}

// What the server refuses is an error, and the connection goes on.
func TestQuestionRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p, err := connectPrimary(t.Context(), b.invalidatorURL())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(t.Context())
	var version int
	if err := p.conn.QueryRow(t.Context(), "select current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatal(err)
	}
	q, err := newQuestion(t.Context(), p, version, nil, "walkey")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.conn.Exec(t.Context(), "deallocate "+glanceStatement); err != nil {
		t.Fatal(err)
	}
	if _, _, err := q.ask(t.Context()); err == nil {
		t.Error("no error")
	}
	if _, err := p.snapshot(t.Context()); err != nil {
		t.Error(err)
	}
}
