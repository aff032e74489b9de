package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The layout of the WAL, the same in all supported versions (xlog_internal.h, xlogrecord.h, pg_control.h), as servers on
// little-endian machines write it. On others nothing here makes sense, and is refused.
const (
	walPageHeader    = 24 // XLogPageHeaderData, with its padding
	walSegmentHeader = 40 // of a segment's first page
	walRecordHeader  = 24
	walLargestRecord = 64 << 20 // more is taken for nonsense

	walPageContinues = 0x01 // the page begins inside a record

	walManagerXLOG        = 0    // the resource manager of the records below
	walShutdownCheckpoint = 0x00 // written by an orderly shutdown as its last record, and by the end of a crash's recovery
	walSwitch             = 0x40 // the rest of the segment is empty
)

// errNoShutdown: the WAL does not end as an orderly shutdown ends it.
var errNoShutdown = errors.New("the WAL does not end with the shutdown of the server that wrote it")

// checkShutdown looks through the WAL from start on, which must be where a record begins, to its end. It gives nil only if
// the last record is the checkpoint of a shutdown, and no other one is: then one life of a server wrote all of it, lost
// nothing of it, and ended in order.
func checkShutdown(wal []byte, start LSN, block, segment uint64) error {
	w := walReader{wal: wal, start: start, at: start, block: block, segment: segment}
	var before LSN
	for shutdown := false; ; {
		if w.at == w.end() {
			if !shutdown {
				return errNoShutdown
			}
			return nil
		}
		if shutdown {
			return fmt.Errorf("%w: it was started again, at %s", errNoShutdown, w.at)
		}
		r, err := w.next()
		if err != nil {
			return fmt.Errorf("read the WAL: %w", err)
		}
		if before != 0 && r.previous != before {
			return fmt.Errorf("read the WAL: the record at %s follows %s, not %s", r.start, r.previous, before)
		}
		before = r.start
		shutdown = r.manager == walManagerXLOG && r.info == walShutdownCheckpoint
	}
}

// walRecord is what is looked at of a record.
type walRecord struct {
	start, previous LSN
	manager, info   byte
}

// walReader goes from record to record.
type walReader struct {
	wal            []byte
	start, at      LSN // of the first byte, of the next one
	block, segment uint64
}

func (w *walReader) end() LSN { return w.start + LSN(len(w.wal)) }

// next reads one record, checks its sum, and goes to where the next one begins.
func (w *walReader) next() (walRecord, error) {
	if err := w.enterPage(0); err != nil {
		return walRecord{}, err
	}
	r := walRecord{start: w.at}
	lead, err := w.bytes(8, 0) // is never split
	if err != nil {
		return r, err
	}
	total := binary.LittleEndian.Uint32(lead)
	if total < walRecordHeader || total > walLargestRecord {
		return r, fmt.Errorf("a record of %d bytes at %s", total, r.start)
	}
	w.at = r.start
	record, err := w.bytes(int(total), int(total))
	if err != nil {
		return r, err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(record[walRecordHeader:], table), table, record[:20])
	if sum != binary.LittleEndian.Uint32(record[20:]) {
		return r, fmt.Errorf("the checksum of the record at %s is wrong", r.start)
	}
	r.previous = LSN(binary.LittleEndian.Uint64(record[8:]))
	r.info, r.manager = record[16]&0xF0, record[17]
	w.at = (w.at + 7) &^ 7
	if r.manager == walManagerXLOG && r.info == walSwitch {
		w.at = (w.at + LSN(w.segment) - 1) / LSN(w.segment) * LSN(w.segment)
	}
	if w.at > w.end() {
		return r, fmt.Errorf("the WAL ends inside of the record at %s", r.start)
	}
	return r, nil
}

// bytes takes the next n bytes across pages. total is the length of the record that they are the beginning of.
func (w *walReader) bytes(n, total int) ([]byte, error) {
	var taken []byte
	for len(taken) < n {
		if err := w.enterPage(total - len(taken)); err != nil {
			return nil, err
		}
		part := min(uint64(n-len(taken)), w.block-uint64(w.at)%w.block)
		from := uint64(w.at - w.start)
		if from+part > uint64(len(w.wal)) {
			return nil, fmt.Errorf("the WAL ends at %s, inside of a record", w.end())
		}
		taken = append(taken, w.wal[from:from+part]...)
		w.at += LSN(part)
	}
	return taken, nil
}

// enterPage passes a page's header, when one is next. left is what there still is of a record that began before: 0 when
// one is to begin.
func (w *walReader) enterPage(left int) error {
	if uint64(w.at)%w.block != 0 {
		return nil
	}
	size := uint64(walPageHeader)
	if uint64(w.at)%w.segment == 0 {
		size = walSegmentHeader
	}
	from := uint64(w.at - w.start)
	if from+size > uint64(len(w.wal)) {
		return fmt.Errorf("the WAL ends in a page's header at %s", w.at)
	}
	header := w.wal[from : from+size]
	flags, address, remains := binary.LittleEndian.Uint16(header[2:]), binary.LittleEndian.Uint64(header[8:]), binary.LittleEndian.Uint32(header[16:])
	continues := uint32(0)
	if flags&walPageContinues != 0 {
		continues = remains
	}
	if LSN(address) != w.at || uint64(continues) != uint64(left) {
		return fmt.Errorf("the page at %s does not go on with what was before it", w.at)
	}
	w.at += LSN(size)
	return nil
}
