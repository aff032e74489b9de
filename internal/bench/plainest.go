package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// floors are the programs that this one can be instead.
var floors = map[string]func(context.Context, []string) error{
	"floor-deleter": plainDeleter,
	"floor-server":  plainServer,
}

// plainDeleter is the plainest program that deletes a key for each commit: it receives from a slot and sends one UNLINK, visible or
// not, confirmed or not. With -gate it asks Postgres for a snapshot in between, and does not look at the answer: what the
// plainest program costs that could know whether readers see the commit.
func plainDeleter(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("floor-deleter", flag.ContinueOnError)
	slot := flags.String("slot", "", "slot and publication")
	key := flags.String("key", "", "the key to delete, but for the row's id at its end")
	gate := flags.Bool("gate", false, "ask for a snapshot first")
	if err := flags.Parse(args); err != nil {
		return err
	}
	url := os.Getenv("DATABASE_URL")
	conn, err := pgconn.Connect(ctx, url+"&replication=database")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := pglogrepl.StartReplication(ctx, conn, *slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", fmt.Sprintf("publication_names '%s'", *slot)},
	}); err != nil {
		return err
	}
	var asking *pgconn.PgConn
	if *gate {
		if asking, err = pgconn.Connect(ctx, url); err != nil {
			return err
		}
		defer func() { _ = asking.Close(context.Background()) }()
		if _, err := asking.Prepare(ctx, "s", "select pg_current_snapshot()::text", nil); err != nil {
			return err
		}
	}
	valkey, err := dialValkey(ctx, os.Getenv("VALKEY_HOST")+":"+os.Getenv("VALKEY_PORT"))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Conn().SetDeadline(time.Unix(1, 0)) })
	defer stop()
	id := ""
	background := context.Background() // a context that can end costs pgconn a goroutine for each call
	for {
		message, err := conn.ReceiveMessage(background)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		data, ok := message.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		log, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			return err
		}
		switch log.WALData[0] {
		case 'U':
			if id, err = newID(log.WALData); err != nil {
				return err
			}
			continue
		case 'C':
		default:
			continue
		}
		if asking != nil {
			result := asking.ExecPrepared(background, "s", nil, nil, nil).Read()
			if result.Err != nil {
				return result.Err
			}
			if len(result.Rows) != 1 {
				return errors.New("no snapshot")
			}
		}
		if _, err := valkey.ask("UNLINK", *key+id); err != nil {
			return err
		}
	}
}

// newID is the first column of the new row in an UPDATE that left the key alone.
func newID(message []byte) (string, error) {
	const kind, columns, first, length = 5, 6, 8, 9
	if len(message) < length+4 || message[kind] != 'N' || message[first] != 't' || message[columns+1] == 0 {
		return "", errors.New("an UPDATE of another form")
	}
	n := int(binary.BigEndian.Uint32(message[length:]))
	if n > len(message)-length-4 {
		return "", errors.New("an UPDATE that is cut off")
	}
	return string(message[length+4 : length+4+n]), nil
}
