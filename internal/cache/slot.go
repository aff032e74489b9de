package cache

import (
	"strconv"
	"strings"
	"sync"
)

// slotCount is how many slots a cluster's keys are divided into.
const slotCount = 16384

// slotOf is the slot of a full key: of the part in the first braces, if there are any and something is in them.
func slotOf(key string) uint16 {
	if begin := strings.IndexByte(key, '{'); begin >= 0 {
		if length := strings.IndexByte(key[begin+1:], '}'); length > 0 {
			key = key[begin+1 : begin+1+length]
		}
	}
	sum := uint16(0)
	for i := range len(key) {
		sum = sum<<8 ^ crcTable[byte(sum>>8)^key[i]]
	}
	return sum % slotCount
}

// crcTable is that of CRC-16/XMODEM.
var crcTable = func() (table [256]uint16) {
	for i := range table {
		sum := uint16(i) << 8
		for range 8 {
			if sum&0x8000 != 0 {
				sum = sum<<1 ^ 0x1021
			} else {
				sum <<= 1
			}
		}
		table[i] = sum
	}
	return table
}()

// slotTag gives a text that lies in the slot when it stands in braces: the smallest number that does.
func slotTag(slot uint16) string { return allTags()[slot] }

var allTags = sync.OnceValue(func() *[slotCount]string {
	var tags [slotCount]string
	for left, n := slotCount, 0; left > 0; n++ {
		tag := strconv.Itoa(n)
		if slot := slotOf(tag); tags[slot] == "" {
			tags[slot] = tag
			left--
		}
	}
	return &tags
})

// stateRank orders the slots. Walkey's state on a primary lies in that of its slots which comes first, so that who deletes
// and who reads find it without telling one another. The order is a shuffled one: whichever slots move, from the lowest up
// mostly, the one with the state is seldom among them.
func stateRank(slot uint16) uint16 { return slot * 40503 % slotCount }
