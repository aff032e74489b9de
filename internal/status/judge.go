package status

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

const (
	// patience is how long a process may take to begin, or to begin anew, before somebody has to look.
	patience = 5 * time.Second
	// heldLong is how long a commit may stay invisible before that deserves a remark.
	heldLong = 10 * time.Second
	// crowded is how many percent of Valkey's memory may be used before that deserves a remark.
	crowded = 90
)

// verdict is the judgement.
type verdict struct {
	state            State
	colour           Colour
	sentence, reason string
}

// judge says what is true, by the worst that there is.
func (f *facts) judge() verdict {
	bound := Seconds(f.maxStaleness)
	switch {
	case f.serverErr != nil:
		v := verdict{PostgresDown, Red, "Postgres does not answer. Cached answers are used for at most " + bound + " more, then reads fail.", plain(f.serverErr)}
		if f.valkeyErr != nil {
			v.sentence = "Neither Postgres nor Valkey answers. Reads fail."
			v.reason += "; Valkey: " + plain(f.valkeyErr)
		}
		return v
	case f.valkeyErr != nil:
		return verdict{ValkeyDown, Red, "Valkey does not answer. Reads are answered from Postgres; no old value is served.", plain(f.valkeyErr)}
	case f.process != nil && f.process.Resync != nil:
		p := f.process.Resync
		return verdict{
			Resynchronising, Yellow,
			fmt.Sprintf("Everything that rules can name is being deleted, %s so far. Until that is done, reads are answered from Postgres.", Count(p.Deleted, "key")),
			"changes may have been missed: " + p.Reason,
		}
	case f.active() != nil:
		return f.judgeActive()
	case !f.server.slot.Active:
		return f.judgeInactive()
	}
	return f.judgeOther()
}

// judgeActive judges by what the process itself has proved.
func (f *facts) judgeActive() verdict {
	lag := *f.lag()
	if lag <= f.maxStaleness/2 {
		return verdict{Healthy, Green, "Everything is true: each change deletes its keys as soon as readers can see it.", ""}
	}
	v := verdict{CatchingUp, Yellow, "", "the last proof that everything is deleted is " + Seconds(lag) + " old"}
	if n := f.behind(); n > 0 {
		v.reason += "; " + Bytes(n) + " of the log are still to come"
	}
	v.sentence = f.catchingUp(lag)
	return v
}

func (f *facts) catchingUp(lag time.Duration) string {
	if lag <= f.maxStaleness {
		return "Deletes are behind. Cached answers are still younger than " + Seconds(f.maxStaleness) + "."
	}
	return "Deletes are behind. Until they have caught up, reads are answered from Postgres; no old value is served."
}

// behind is how many bytes are to come; 0 when that is not known.
func (f *facts) behind() int64 {
	var s Stream
	if f.fillStream(&s); s.LagBytes != nil {
		return *s.LagBytes
	}
	return 0
}

// judgeInactive judges when nobody holds the slot.
func (f *facts) judgeInactive() verdict {
	v := verdict{NobodyActive, Red, "Nobody follows the changes. Reads are answered from Postgres; no old value is served.", ""}
	switch {
	case f.process == nil && !f.server.slot.Exists:
		v.reason = "there is no slot " + f.slot + ": start the invalidator, which makes it"
	case f.process == nil:
		v.reason = "no process holds the slot " + f.slot + ", which keeps " + Bytes(f.server.slot.Retained) + " of the log: start the invalidator, or invalidator teardown"
	case f.now.Sub(f.process.RoleSince) < patience:
		v.state, v.colour, v.sentence = Starting, Yellow, "Until this process follows the changes, reads are answered from Postgres; no old value is served."
		v.reason = cmp.Or(f.process.Failure, f.process.Waiting)
	case f.process.Failure != "":
		v.reason = f.process.Failure
	case f.process.Waiting != "":
		v.reason = f.process.Waiting
	default:
		v.reason = "the invalidator has not come to hold the slot for " + Seconds(f.now.Sub(f.process.RoleSince))
	}
	return v
}

// judgeOther judges when another process holds the slot: all that can be seen is the heartbeat.
func (f *facts) judgeOther() verdict {
	still := f.stillFor
	if still != nil && *still <= f.maxStaleness/2 {
		if f.process != nil {
			return verdict{Standby, Green, "Everything is true, by another process: this one stands by for the slot.", ""}
		}
		return verdict{Healthy, Green, "Everything is true: each change deletes its keys as soon as readers can see it.", ""}
	}
	v := verdict{CatchingUp, Yellow, "", fmt.Sprintf("process %d of the server sends to an invalidator that has not yet written a heartbeat", f.server.slot.PID)}
	lag := f.maxStaleness + time.Second
	if still != nil {
		lag = *still
		v.reason = "the heartbeat stands still for " + Seconds(lag) + " at least: the process that holds the slot catches up, resynchronises, or hangs"
	}
	if n := f.behind(); n > 0 {
		v.reason += "; " + Bytes(n) + " of the log are not confirmed"
	}
	// How old the heartbeat was when it was first seen, nobody knows.
	v.sentence = f.catchingUp(max(lag, f.maxStaleness+1))
	return v
}

// remarks are what deserves a look although all is true.
func (f *facts) remarks() (remarks []string) {
	say := func(format string, args ...any) { remarks = append(remarks, fmt.Sprintf(format, args...)) }
	slot := f.server.slot
	switch {
	case slot.Status == "lost" || slot.Status == "unreserved":
		say("the slot's WAL is %s: the server gives it up, and everything will be deleted anew", slot.Status)
	case slot.Safe != nil && slot.Retained > *slot.Safe:
		say("the slot keeps %s of the log, and the server gives it up after %s more (max_slot_wal_keep_size)", Bytes(slot.Retained), Bytes(*slot.Safe))
	}
	if p := f.process; p != nil {
		if len(p.Uncovered) > 0 {
			say("not every change of %s reaches the stream, so its keys are deleted all the time: invalidator doctor says the mend", strings.Join(p.Uncovered, ", "))
		}
		if !p.Oldest.IsZero() && f.now.Sub(p.Oldest) > heldLong {
			say("%s committed, the oldest %s ago, and nobody can see it yet: is a synchronous standby away?", Count(p.Held, "transaction"), Seconds(f.now.Sub(p.Oldest)))
		}
	}
	for _, n := range f.nodes {
		if n.MaxMemory > 0 && n.UsedMemory*100 >= n.MaxMemory*crowded {
			say("Valkey at %s uses %s of %s (%s)", n.Node, Bytes(n.UsedMemory), Bytes(n.MaxMemory), n.Policy)
		}
	}
	if v := f.judge(); v.state == Healthy || v.state == Standby {
		for _, p := range f.presences {
			if !p.Trusted && f.now.Sub(p.Since) > patience {
				say("api at %s (%s) does not trust the cache: %s", p.Address, p.Host, p.Reason)
			}
		}
	}
	return remarks
}

// Bytes is a size for people.
func Bytes(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	value := float64(n)
	unit := ""
	for _, unit = range units {
		if value /= 1024; value < 1000 {
			break
		}
	}
	if value < 10 {
		return fmt.Sprintf("%.1f %s", value, unit)
	}
	return fmt.Sprintf("%.0f %s", value, unit)
}

// Count is a number with what is counted, whose plural takes an s.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Thousands(n) + " " + what + "s"
}

// Thousands writes a number with commas.
func Thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// Seconds is a duration for people.
func Seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}
