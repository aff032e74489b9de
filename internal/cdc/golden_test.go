package cdc

import (
	"encoding/hex"
	"flag"
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
			pieces, err := decodeAll(newDecoder(idAndTitle, &pool{}), recording(t, file)...)
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
}
