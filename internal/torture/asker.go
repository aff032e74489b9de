package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// askTimeout bounds one request; no promise is that weak.
const askTimeout = 40 * time.Second

// asker asks one api over one connection, which is made anew after an error. It does little more than that, so that what judges the
// answers does not take the time of what gives them. It is used by one goroutine.
type asker struct {
	addr string
	conn net.Conn // nil: there is none
	from *bufio.Reader
	line []byte
}

// ask sends one GET, with a Consistency-Token unless that is empty.
func (a *asker) ask(ctx context.Context, path, token string) (code int, cacheStatus string, body []byte, err error) {
	if a.conn == nil {
		dialer := net.Dialer{Timeout: askTimeout}
		if a.conn, err = dialer.DialContext(ctx, "tcp", a.addr); err != nil {
			a.conn = nil
			return 0, "", nil, err
		}
		a.from = bufio.NewReader(a.conn)
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	conn := a.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return 0, "", nil, err
	}
	a.line = fmt.Appendf(a.line[:0], "GET %s HTTP/1.1\r\nHost: torture\r\n", path)
	if token != "" {
		a.line = fmt.Appendf(a.line, "Consistency-Token: %s\r\n", token)
	}
	if _, err := conn.Write(append(a.line, "\r\n"...)); err != nil {
		return 0, "", nil, err
	}
	response, err := http.ReadResponse(a.from, nil)
	if err != nil {
		return 0, "", nil, err
	}
	body, err = io.ReadAll(response.Body)
	if err == nil {
		err = response.Body.Close()
	}
	if err == nil && response.Close {
		a.close()
	}
	return response.StatusCode, response.Header.Get("Cache-Status"), body, err
}

func (a *asker) close() {
	if a.conn != nil {
		_ = a.conn.Close() // what it held is lost either way
		a.conn = nil
	}
}
