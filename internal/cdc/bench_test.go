package cdc

import (
	"fmt"
	"testing"
)

// BenchmarkDecode decodes transactions of rows with ten columns, of which two are wanted. An operation is one row.
func BenchmarkDecode(b *testing.B) {
	columns := []string{"*id", "title"}
	row := []string{"1234567", "a title of some length"}
	for i := range 8 {
		columns = append(columns, fmt.Sprintf("column%d", i))
		row = append(row, "some text in a column that nobody wants")
	}
	head := relation(7, "public.materials", 'd', columns...)
	for _, rows := range []int{1, 100, 10_000} {
		for _, release := range []bool{false, true} {
			b.Run(fmt.Sprintf("rows=%d/release=%t", rows, release), func(b *testing.B) {
				p := &pool{most: 16}
				d := newDecoder(idAndTitle, p)
				if _, err := d.decode(head, 0); err != nil {
					b.Fatal(err)
				}
				message := insert(7, row...)
				b.SetBytes(int64(len(message)))
				b.ReportAllocs()
				batch := p.batch()
				take := func(done progress, err error) {
					if err != nil {
						b.Fatal(err)
					}
					if done == nothing {
						return
					}
					t, slabs, _, _ := d.cut(batch.slabs)
					batch.slabs = slabs
					batch.Transactions = append(batch.Transactions, t)
					if len(batch.Transactions) < 100 {
						return
					}
					if release {
						p.release(batch)
					}
					batch = p.batch()
				}
				start, end := begin(0, 5), commit(0, 1)
				for n := 0; b.Loop(); n++ {
					if n%rows == 0 {
						if n > 0 {
							take(d.decode(end, 0))
						}
						take(d.decode(start, 0))
					}
					take(d.decode(message, 0))
				}
			})
		}
	}
}
