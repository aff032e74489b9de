package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// valkeyConn is a plain connection: one command after the other, in RESP3 when it was asked for.
type valkeyConn struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialValkey(ctx context.Context, addr string) (*valkeyConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &valkeyConn{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// track makes the connection one that is told when a key that it has read changes.
func (v *valkeyConn) track() error {
	if _, err := v.ask("HELLO", "3"); err != nil {
		return err
	}
	_, err := v.ask("CLIENT", "TRACKING", "ON")
	return err
}

// ask sends one command and gives its reply, as text.
func (v *valkeyConn) ask(words ...string) (string, error) {
	if err := v.send(words...); err != nil {
		return "", err
	}
	for {
		reply, push, err := v.read()
		if err != nil || !push {
			return reply, err
		}
	}
}

func (v *valkeyConn) send(words ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	_, err := io.WriteString(v.conn, b.String())
	return err
}

// pushed waits for a push; replies that come before it are dropped.
func (v *valkeyConn) pushed(patience time.Duration) (string, error) {
	if err := v.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	for {
		text, push, err := v.read()
		if err != nil || push {
			return text, err
		}
	}
}

// read reads one reply or push.
func (v *valkeyConn) read() (text string, push bool, err error) {
	line, err := v.in.ReadString('\n')
	if err != nil {
		return "", false, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", false, fmt.Errorf("an empty line from Valkey")
	}
	rest := line[1:]
	switch line[0] {
	case '-', '!':
		return "", false, fmt.Errorf("the answer of Valkey: %s", rest)
	case '$', '=':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", false, err
		}
		b := make([]byte, n+2)
		_, err = io.ReadFull(v.in, b)
		return string(b[:n]), false, err
	case '*', '>', '%', '~':
		n, err := strconv.Atoi(rest)
		if err != nil {
			return "", false, err
		}
		if line[0] == '%' {
			n *= 2
		}
		var all []string
		for range n {
			one, _, err := v.read()
			if err != nil {
				return "", false, err
			}
			all = append(all, one)
		}
		return strings.Join(all, " "), line[0] == '>', nil
	default:
		return rest, false, nil
	}
}
