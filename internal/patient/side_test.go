package patient

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// below is a connection that says what was asked of it. Its calls end as the test says.
type below struct {
	net.Conn
	asked  []string
	ends   []error // of calls, in order; none: nil
	during func()  // runs inside of each call
}

func (b *below) call(name string) error {
	b.asked = append(b.asked, name)
	if b.during != nil {
		b.during()
	}
	if len(b.ends) == 0 {
		return nil
	}
	err := b.ends[0]
	b.ends = b.ends[1:]
	return err
}

func (b *below) Read(p []byte) (int, error) {
	if err := b.call("read"); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Write writes two bytes where it does not write all.
func (b *below) Write(p []byte) (int, error) {
	if err := b.call("write " + string(p)); err != nil {
		return min(2, len(p)), err
	}
	return len(p), nil
}

func (b *below) SetReadDeadline(t time.Time) error {
	b.asked = append(b.asked, "until "+name(t))
	return nil
}

func (b *below) SetWriteDeadline(t time.Time) error { return b.SetReadDeadline(t) }

var (
	never = time.Time{}
	past  = time.Unix(1, 0)
	soon  = time.Now().Add(time.Hour)
	late  = soon.Add(time.Hour)
)

func name(t time.Time) string {
	return map[time.Time]string{never: "never", past: "past", soon: "soon", late: "late"}[t]
}

// Both sides arm a timer only when a call begins, or is under way, and the timer that is armed would come too late.
func TestArmed(t *testing.T) {
	t.Parallel()
	timeout := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	type step func(*conn) error
	read := func(c *conn) error { _, err := c.Read(make([]byte, 1)); return err }
	write := func(c *conn) error { _, err := c.Write([]byte("abcde")); return err }
	until := func(d time.Time) step { return func(c *conn) error { return c.SetDeadline(d) } }
	ended := func(s step) step {
		return func(c *conn) error {
			if err := s(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("not ended by a deadline")
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name  string
		ends  []error
		steps []step
		want  []string
	}{
		{"no deadline", nil, []step{read, until(never), read}, []string{"read", "read"}},
		{"nothing is read", nil, []step{until(soon), until(late), until(past), until(never)}, nil},
		{"the deadlines of a request", nil, []step{until(soon), until(late), read, until(never), until(past), until(never), until(late), read}, []string{"until late", "read", "read"}},
		{"an earlier one", nil, []step{until(late), read, until(soon), read}, []string{"until late", "read", "until soon", "read"}},
		{"a later one", nil, []step{until(soon), read, until(late), read, until(never), read}, []string{"until soon", "read", "read", "read"}},
		{"in the past", nil, []step{until(past), ended(read), ended(write), until(never), read, write}, []string{"read", "write abcde"}},
		{"over", []error{timeout}, []step{until(soon), ended(read)}, []string{"until soon", "read"}},
		{"over too early", []error{nil, timeout}, []step{until(soon), read, until(late), read}, []string{"until soon", "read", "read", "until late", "read"}},
		{"over too early twice", []error{nil, timeout, timeout}, []step{until(soon), read, until(late), ended(read)}, []string{"until soon", "read", "read", "until late", "read"}},
		{"over, and none any more", []error{nil, timeout}, []step{until(soon), read, until(never), read}, []string{"until soon", "read", "read", "until never", "read"}},
		{"written in parts", []error{nil, timeout}, []step{until(soon), write, until(late), write}, []string{"until soon", "write abcde", "write abcde", "until late", "write cde"}},
		{"not written", []error{timeout}, []step{until(soon), ended(write)}, []string{"until soon", "write abcde"}},
		{"the sides", nil, []step{until(soon), read, write}, []string{"until soon", "read", "until soon", "write abcde"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &below{ends: tt.ends}
			c := newConn(b)
			for i, s := range tt.steps {
				if err := s(c); err != nil {
					t.Fatalf("step %d: %v", i+1, err)
				}
			}
			if diff := cmp.Diff(tt.want, b.asked); diff != "" {
				t.Errorf("what was asked of the connection below (-want +got):\n%s", diff)
			}
		})
	}
}

// A deadline that is asked for while a call is under way reaches it, if it comes before the one that is armed.
func TestArmedDuring(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		armed  time.Time
		during time.Time
		behind time.Time
		want   []string
	}{
		{"past", never, past, never, []string{"read", "until past", "until never", "read"}},
		{"earlier", late, soon, late, []string{"until late", "read", "until soon", "read"}},
		{"later", soon, late, late, []string{"until soon", "read", "read"}},
		{"none", soon, never, never, []string{"until soon", "read", "read"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &below{}
			c := newConn(b)
			set := func(d time.Time) {
				if err := c.SetReadDeadline(d); err != nil {
					t.Error(err)
				}
			}
			set(tt.armed)
			b.during = func() { set(tt.during) }
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			b.during = nil
			set(tt.behind)
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, b.asked); diff != "" {
				t.Errorf("what was asked of the connection below (-want +got):\n%s", diff)
			}
		})
	}
}
