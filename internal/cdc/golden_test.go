package cdc

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	rewrite = flag.Bool("rewrite", false, "write the golden stories anew from the recorded messages")
	record  = flag.String("record", "", "record the messages of the server at hand under this name")
)

// TestGolden decodes messages that real servers sent, one of them a line in hexadecimal, and compares the story.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".hex")
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			d := newDecoder(idAndTitle, &pool{})
			if strings.HasSuffix(name, "streamed") {
				d.stream(1 << 20)
			}
			pieces, err := decodeAll(d, recording(t, file)...)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(stories(pieces), "\n") + "\n"
			if *rewrite {
				if err := os.WriteFile(name+".golden", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".golden")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("stories differ (-want +got):\n%s", diff)
			}
		})
	}
}

func recording(t testing.TB, file string) []wire {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var messages []wire
	for line := range strings.Lines(string(text)) {
		m, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

// TestRecord makes a recording when it is asked to.
func TestRecord(t *testing.T) {
	t.Parallel()
	if *record == "" {
		t.Skip("only with -record")
	}
	d := shared(t, createTable("t"), createTable("part"), `CREATE PUBLICATION walkey FOR TABLE t, part`,
		`CREATE TYPE mood AS ENUM ('fine')`, `ALTER TABLE t ADD mood mood`)
	d.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text`, d.slot)
	d.run(
		`INSERT INTO t VALUES (1, 'one', 1, 'fine'), (2, NULL, NULL, NULL), (3, '', NULL, NULL)`, `UPDATE t SET title = 'uno' WHERE id = 1`, `UPDATE t SET id = 10 WHERE id = 1`,
		`DELETE FROM t WHERE id = 2`,
		`BEGIN; INSERT INTO t VALUES (4, 'four'); SAVEPOINT s; INSERT INTO t VALUES (5, 'five'); ROLLBACK TO s; INSERT INTO part VALUES (6, 'six'); COMMIT`,
		`ALTER TABLE t REPLICA IDENTITY FULL, ALTER title SET STORAGE EXTERNAL`,
		`INSERT INTO t VALUES (7, repeat('x', 5000))`, `UPDATE t SET n = 7 WHERE id = 7`, `DELETE FROM t WHERE id = 7`,
		`ALTER TABLE t RENAME title TO name`, `INSERT INTO t VALUES (8, 'eight')`,
		`SELECT pg_logical_emit_message(true, 'prefix', 'content')`, `SELECT pg_logical_emit_message(false, 'prefix', 'content')`,
		`SELECT pg_replication_origin_create(`+literal(d.slot)+`)`, `SELECT pg_replication_origin_session_setup(`+literal(d.slot)+`)`,
		`INSERT INTO t VALUES (9, 'nine')`, `SELECT pg_replication_origin_session_reset()`, `SELECT pg_replication_origin_drop(`+literal(d.slot)+`)`,
		`TRUNCATE t, part RESTART IDENTITY CASCADE`,
	)
	text := d.query(`SELECT string_agg(encode(data, 'hex'), E'\n') || E'\n' FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
		'proto_version', '1', 'publication_names', 'walkey', 'messages', 'true')`, d.slot)
	if err := os.WriteFile(filepath.Join("testdata", *record+".hex"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d.recordStreamed(filepath.Join("testdata", *record+"-streamed.hex"))
}

// recordStreamed records transactions that are streamed: of few rows that are wide, but for the columns that are published.
func (d *database) recordStreamed(file string) {
	d.t.Helper()
	d.run(createTable("w"), `ALTER TABLE w ADD filler text DEFAULT repeat('x', 7000), ALTER filler SET STORAGE PLAIN`, `CREATE TABLE v (LIKE w INCLUDING ALL)`, `CREATE PUBLICATION narrow FOR TABLE w (id, title), v (id, title)`,
		`INSERT INTO w VALUES (1, 'one')`)
	slot := d.slot + "_streamed"
	d.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text`, slot)
	rows := func(from, to int, title string) string {
		return fmt.Sprintf(`INSERT INTO w SELECT i, '%s' FROM generate_series(%d, %d) i`, title, from, to)
	}
	other := d.begun(strings.Replace(rows(101, 112, "other"), "w", "v", 1))
	d.run(
		`BEGIN`, rows(2, 13, "two"), `SAVEPOINT s`, rows(14, 25, "undone"), `ROLLBACK TO s`, `ALTER TABLE w RENAME title TO name`, rows(26, 37, "renamed"), `UPDATE w SET id = -id WHERE id < 3`,
		`ALTER TABLE w RENAME name TO title`, `DELETE FROM w WHERE id > 20`,
	)
	d.on(other, strings.Replace(rows(113, 124, "other"), "w", "v", 1), `ROLLBACK`)
	d.run(`TRUNCATE w`, rows(1, 12, "last"), `COMMIT`, `INSERT INTO w VALUES (99, 'small')`)
	d.run(`SET logical_decoding_work_mem = '64kB'`)
	text := d.query(`SELECT string_agg(encode(data, 'hex'), E'\n') || E'\n' FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
		'proto_version', '2', 'publication_names', 'narrow', 'streaming', 'on')`, slot)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}
