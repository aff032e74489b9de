package cdc

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"
)

// writeStatus sends a standby status update. It is written here because a helper that takes a zero flush position for
// "the same as written" could not say that nothing is confirmed.
func writeStatus(to *pgproto3.Frontend, confirmed pglogrepl.LSN, now time.Time, reply bool) error {
	data := make([]byte, 0, 1+8+8+8+8+1)
	data = append(data, pglogrepl.StandbyStatusUpdateByteID)
	for range 3 { // written, flushed, applied
		data = binary.BigEndian.AppendUint64(data, uint64(confirmed))
	}
	data = binary.BigEndian.AppendUint64(data, uint64(now.UnixMicro()-postgresEpoch*1_000_000))
	var ask byte
	if reply {
		ask = 1
	}
	data = append(data, ask)
	to.Send(&pgproto3.CopyData{Data: data})
	if err := to.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
